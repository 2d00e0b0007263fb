"""Runs side by side: the same sections, whatever each run lacks, and the table on the terminal."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from es2_lightning.compare import main
from es2_lightning.config.job_record import JobRecord
from es2_lightning.reports.page.comparison_page import runs_table, write_comparison
from es2_lightning.reports.page.labels import labels
from es2_lightning.reports.page.run_files import RunFiles, read_run_files
from es2_lightning.reports.page.run_page import report_run
from es2_lightning.reports.page.tables import Cell, PageRow, PageTable

from ...commands import run_command
from .html_reading import Page, read_page
from .run_folders import CONFIG, run_folder, small_comparison
from .test_run_page import assert_safe

EVIL = "<script>alert(1)</script>"


def write_runs(root: Path) -> list[Path]:
    """Two measured runs that differ in one setting, and one that was interrupted."""
    return [
        run_folder(root / "one", comparison=small_comparison(attacks=("scav_worst",))),
        run_folder(
            root / EVIL.replace("/", "_"),
            comparison=small_comparison(attacks=("scav_worst", "gcg"), say=lambda _: EVIL),
            config=CONFIG | {"loss": {"kl_weight": EVIL}},
            words=["loss.kl_weight=x"],
        ),
        run_folder(
            root / "three", finished=False, config=CONFIG | {"loss": {"kl_weight": 0.1}}, words=None
        ),
    ]


def test_runs_are_laid_side_by_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [read_run_files(folder) for folder in write_runs(tmp_path)]
    first, evil, last = labels(runs)
    assert (first, last) == ("1: kl_weight 1.0", "3: kl_weight 0.1") and evil.endswith("</script>")
    paper = PageTable("Table 1", ["", "paper", "here"], [PageRow("DSR", [Cell("99"), Cell("98")])])
    page = read_page(write_comparison(runs, tmp_path, paper=[paper]).read_text("utf-8"))
    assert_safe(page)
    assert not caplog.records  # Every picture could be drawn.
    assert page.titles == [
        "3 runs side by side", "The runs", "Beside the paper", "What attacks get out of them",
        "What they can still do", "What to be careful about", "How the training went",
        "Inside the models", "All figures", "What the models said", "What was run",
    ]  # fmt: skip
    shown = " | ".join(page.images)
    assert "shift that recovers half, × the base's against harmless answers kept" in shown
    assert "KL on harmless requests over the training steps, by run" in shown
    assert "Hidden states at layer 2: base" in shown and "layer 2: 1: kl_weight 1.0" in shown
    assert "Table 1" in page.text and "Not finished" in page.text
    assert EVIL in page.text and "loss.kl_weight" in page.text
    again, *commands = page.commands
    assert commands == [f"python -m es2_lightning.train loss.kl_weight={x}" for x in ("1", "x")]
    words = shlex.split(again)
    assert words[:3] == ["python", "-m", "es2_lightning.compare"] and words[4:] == ["paper=true"]


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / name, metrics=[], stages=[]) for name in "ab"]
    page = written(folders, tmp_path)
    assert page.titles == ["2 runs side by side", "The runs", "What was run"]
    assert labels([read_run_files(folder) for folder in folders]) == ["1: a", "2: b"]


def test_runs_are_called_by_what_sets_them_apart() -> None:
    def run(name: str, method: str, *layers: int, seed: int = 0) -> RunFiles:
        config = {"seed": seed, "a": name, "b": name, "c": name}
        return RunFiles(Path("/runs") / name, layers=layers, choices={"method": method},
                        config=config)  # fmt: skip

    mixed = [run("x", "es2", 3, 6), run("y", "es2", 6), run("z", "stl", 6)]
    assert labels(mixed) == ["1: es2, layers 3,6", "2: es2, layers 6", "3: stl"]
    assert labels([run("x", "es2"), run("y" * 40, "es2", seed=1)])[0] == "1: x"
    assert labels([RunFiles(Path(name), config={"seed": name}) for name in "ab"]) == [
        "1: seed a", "2: seed b",
    ]  # fmt: skip


@pytest.mark.usefixtures("no_pictures")
def test_bases_that_differ_are_told(tmp_path: Path) -> None:
    folders = [
        run_folder(tmp_path / str(n), comparison=small_comparison(attacks=("gcg",), n=n))
        for n in (8, 12)
    ]
    page = written(folders, tmp_path)
    assert "its base: " in page.text


def test_the_table_on_the_terminal_fits(tmp_path: Path) -> None:
    runs = [read_run_files(folder) for folder in write_runs(tmp_path)]
    text = io.StringIO()
    Console(file=text, width=80).print(runs_table(runs))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.lstrip().startswith("3: kl_weight 0.1") and "–" in line for line in lines)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of a page's time."""
    for page in ("run_page", "comparison_page"):
        monkeypatch.setattr(f"es2_lightning.reports.page.{page}.drawn", lambda drawings: [])


@pytest.mark.usefixtures("no_pictures")
def test_the_command_takes_runs_and_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 0):
        folder = run_folder(Path("sweep") / str(number), metrics=[], words=["seed=1"])
        JobRecord(number, str(number), ("seed=1",), {}, "a", "b", "finished", "h", 1, 0.0).write(
            folder
        )
    single = run_folder(Path("it's, [one]"), comparison=small_comparison(attacks=("gcg",)))
    report_run(single)

    run_command(main, "runs=[sweep]", monkeypatch=monkeypatch)
    assert f"The comparison: {tmp_path}/sweep/compare.html" in capsys.readouterr().out
    page = read_page(Path("sweep/compare.html").read_text("utf-8"))
    assert "0: sweep/0" in page.text and "1: sweep/1" in page.text

    run_command(main, r"runs=[sweep/1,'it\'s, [one]']", "to=there", monkeypatch=monkeypatch)
    page = read_page(Path("there/compare.html").read_text("utf-8"))
    links = [value for tag, _, value in page.addresses if tag == "a" and value[0] != "#"]
    assert links == ["./../it%27s%2C%20%5Bone%5D/report.html"]
    # The command on the page writes the same page once more.
    Path("there/compare.html").unlink()
    words = shlex.split(page.commands[0])[3:]
    run_command(main, *words, "to=there", monkeypatch=monkeypatch)
    assert read_page(Path("there/compare.html").read_text("utf-8")).text == page.text

    (single / "report.html").unlink()
    run_command(main, r"runs=['it\'s, [one]']", monkeypatch=monkeypatch)
    assert (single / "report.html").exists()
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        ([], r"runs is empty\. Give it some: runs=\[outputs/<run>,outputs/<run>\]"),
        (["runs=[nowhere]"], r"runs=\[…,nowhere\]: no such folder\. .*such as a"),
        (["runs=[empty]"], r"runs=\[…,empty\]: there is neither a run in it nor a sweep"),
        (["runs=[a,ranked]"], r"runs=\[…,ranked\]: there is neither a run in it nor a sweep"),
        (["runs=[a]", "to=a/config.yaml"], r"to=a/config.yaml: that is a file"),
    ],
)
def test_what_is_no_run_is_refused(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a").mkdir()
    Path("a/config.yaml").write_text(json.dumps(CONFIG))
    Path("ranked").mkdir()
    Path("ranked/config.yaml").write_text(json.dumps({"ranker": {}, "model": {}, "seed": 0}))
    run_command(main, *words, monkeypatch=monkeypatch, status=2)
    assert re.search(told, capsys.readouterr().err)


def written(folders: list[Path], root: Path) -> Page:
    """The page of these runs."""
    runs = [read_run_files(folder) for folder in folders]
    return read_page(write_comparison(runs, root).read_text("utf-8"))
