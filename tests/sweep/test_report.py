"""A sweep's files say what its jobs' files hold, at any time."""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from es2_lightning.reports.sweep_report import show_sweep, write_sweep_files
from es2_lightning.reports.sweep_rows import Spread, over_seeds, pareto_front, read_sweep

from .synthetic_sweeps import write_job


def cells(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_job(tmp_path, 0, "loss.kl_weight=0.1", kl_weight=0.1, dsr=0.9, kept=0.5)
    write_job(tmp_path, 1, "loss.kl_weight=1", dsr=0.4, kept=1.0, half_yield=math.inf)
    write_job(tmp_path, 2, "loss.kl_weight=2", kl_weight=2, dsr=0.3, kept=0.9, layers=(6,))
    write_job(tmp_path, 3, "loss.kl_weight=-1", status="failed", error="kl_weight=-1 [is] wrong")
    write_job(tmp_path, 4, "loss.kl_weight=4", status="running")
    return tmp_path


def test_the_csv_has_a_line_for_each_job(sweep: Path) -> None:
    write_sweep_files(sweep)
    lines = cells(sweep / "sweep.csv")
    assert [line["status"] for line in lines] == ["finished"] * 3 + ["failed", "running"]
    first = lines[0]
    assert first | {
        "job": "0", "overrides": "loss.kl_weight=0.1", "layers": "3,6", "kl_weight": "0.1",
        "seed": "0", "scav_dsr": "0.9", "scav_worst_dsr": "0.45",
        "scav_dsr_at_base_budget": "0.75", "half_yield_ratio": "2", "capability_kept": "0.5",
        "over_refusal": "0.1", "kl": "0.02", "steps": "60+7",
        "stage_ends": "budget+kl_threshold", "seconds": "12.5", "error": "", "folder": "0",
    } == first  # fmt: skip
    assert lines[1]["half_yield_ratio"] == "inf" and lines[2]["layers"] == "6"
    assert lines[3]["error"] == "kl_weight=-1 [is] wrong" and lines[3]["scav_dsr"] == ""
    assert lines[4]["seconds"] == "" and lines[4]["layers"] == "emergence_terminal"


def test_the_table_tells_the_front_and_what_failed(sweep: Path) -> None:
    text = io.StringIO()
    show_sweep(sweep, console=Console(file=text, width=80))
    shown = text.getvalue()
    marked = [line.split()[0] for line in shown.splitlines() if "*" in line and "kl_weight" in line]
    assert marked == ["0", "1"]
    assert "Job 3 (loss.kl_weight=-1) failed: kl_weight=-1 [is] wrong" in shown
    assert "5 jobs: 3 finished, 1 failed, 1 running." in shown
    assert "…" not in shown
    kept = (sweep / "sweep.txt").read_text()
    assert max(map(len, kept.splitlines())) <= 80 and "∞" in kept and "…" not in kept


def test_the_picture_shows_both_panels(sweep: Path) -> None:
    write_sweep_files(sweep)
    with Image.open(sweep / "sweep.png") as picture:
        wide = picture.width
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    for job in ("0", "1", "2"):
        path = sweep / job / "evaluation" / "results.json"
        path.write_text(path.read_text().replace("half_yield", "something"))
    write_sweep_files(sweep)
    with Image.open(sweep / "sweep.png") as picture:
        assert picture.width < 0.7 * wide


def test_half_written_results_are_told(sweep: Path) -> None:
    path = sweep / "0" / "evaluation" / "results.json"
    path.write_text(path.read_text()[:300])
    (sweep / "1" / "evaluation" / "results.json").write_text("{}")
    (sweep / "2" / "job.json").write_text("{")
    (sweep / "1" / "stages.json").write_text("null")
    text = io.StringIO()
    show_sweep(sweep, console=Console(file=text, width=200))
    assert f"Job 0: {path} cannot be read; its figures are left out." in text.getvalue()
    assert "Job 1: " in text.getvalue()
    assert [line["job"] for line in cells(sweep / "sweep.csv")] == ["0", "1", "3", "4"]


def test_without_a_finished_job_there_is_no_picture(tmp_path: Path) -> None:
    write_job(tmp_path, 0, status="failed", error="RuntimeError: no")
    text = io.StringIO()
    show_sweep(tmp_path, console=Console(file=text, width=200))
    assert "No job has finished yet" in text.getvalue()
    assert not (tmp_path / "sweep.png").exists()
    write_job(tmp_path, 1, measured=False)
    show_sweep(tmp_path, console=Console(file=text, width=200))
    assert "No job has figures" in text.getvalue()


def test_seeds_have_mean_spread_and_range(tmp_path: Path) -> None:
    for number, (seed, dsr) in enumerate(((1, 0.2), (2, 0.4), (3, 0.9))):
        write_job(tmp_path, number, "a=1", f"seed={seed}", seed=seed, dsr=dsr, kept=dsr)
    write_job(tmp_path, 3, "a=2", "seed=1", seed=1, measured=False)
    write_job(tmp_path, 4, "a=2", "seed=2", seed=2, status="failed", error="no")
    one, other = over_seeds(read_sweep(tmp_path))
    assert one.seeds == (1, 2, 3) and other.seeds == (1,)
    spread = one.figures["scav_dsr"]
    assert (spread.n, spread.mean, spread.low, spread.high) == pytest.approx((3, 0.5, 0.2, 0.9))
    assert spread.std == pytest.approx(math.sqrt(0.13))
    assert other.figures["scav_dsr"].n == 0
    write_sweep_files(tmp_path)
    line = cells(tmp_path / "sweep_settings.csv")[0]
    assert (line["overrides"], line["seeds"], line["scav_dsr_std"]) == ("a=1", "1 2 3", "0.360555")
    assert "50±36" in (tmp_path / "sweep.txt").read_text()


def test_without_several_seeds_there_is_one_table(sweep: Path) -> None:
    assert over_seeds(read_sweep(sweep)) == []
    assert "sweep_settings.csv" not in {path.name for path in write_sweep_files(sweep)}


def test_spread_of_few_and_of_infinite_figures() -> None:
    assert math.isnan(Spread.of([1.0]).std) and Spread.of([]).n == 0
    spread = Spread.of([1.0, math.inf, math.nan])
    assert (spread.n, spread.mean, spread.high) == (2, math.inf, math.inf)
    assert math.isnan(spread.std)


def test_the_front_is_what_nothing_beats() -> None:
    nan = math.nan
    points = [(0.0, 9.0), (1, 5), (1, 5), (1, 4), (2, math.inf), (3, 1), (0, 8), (9, nan), (2, 3)]
    beaten = [
        any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points if not math.isnan(q[1]))
        for p in points
    ]
    front = pareto_front(points)
    assert sorted(front) == [i for i in range(len(points)) if not beaten[i] and i != 7]
    assert sorted(front) == [4, 5]
    assert pareto_front([(1.0, 2.0), (2.0, 1.0), (1.0, 2.0)]) == [0, 2, 1]


def test_jobs_of_sweeps_below_are_not_this_ones(sweep: Path) -> None:
    assert read_sweep(sweep.parent) == [] and len(read_sweep(sweep)) == 5


def test_jobs_that_end_at_once_leave_whole_files(sweep: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_sweep_files, args=(sweep,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (sweep / "sweep.csv").exists():
            assert len(cells(sweep / "sweep.csv")) == 5
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert not [path for path in sweep.iterdir() if "part" in path.name]
