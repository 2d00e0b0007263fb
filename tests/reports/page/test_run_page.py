"""A run's page: safe to open, whole in one file, and honest about what is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from es2_lightning.evaluation.comparison import compare
from es2_lightning.evaluation.results_files import write_results
from es2_lightning.logged_keys import described
from es2_lightning.prompts.findings import Finding, Findings
from es2_lightning.prompts.surface import Separability
from es2_lightning.reports.page.rendering import visible
from es2_lightning.reports.page.run_files import read_run_files
from es2_lightning.reports.page.run_page import report_run
from es2_lightning.reports.pictures.training import SHOWN

from ..synthetic import measurement
from .html_reading import Page, read_page
from .run_folders import CONFIG, STAGES, run_folder, small_comparison, whole

EVIL = "<script>alert('x')</script><img src=x onerror=\"alert(1)\"></pre></details>&amp;"


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder, with its page."""
    folder = tmp_path_factory.mktemp("runs") / "complete"
    assert report_run(run_folder(folder, comparison=small_comparison()))
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of a page's time."""
    monkeypatch.setattr("es2_lightning.reports.page.run_page.drawn", lambda drawings: [])


def page_of(folder: Path) -> Page:
    """The page of a run, written now."""
    page = report_run(folder)
    assert page == folder / "report.html"
    return read_page(page.read_text("utf-8"))


def assert_safe(page: Page) -> None:
    """Nothing is fetched, nothing runs, nothing leads away."""
    assert not {"script", "iframe", "object", "embed", "svg", "base", "form"} & set(page.tags)
    assert not page.handlers
    for tag, name, value in page.addresses:
        wanted = {"a": ("#", "./"), "img": "data:image/png;base64,", "link": "data:,"}[tag]
        assert value.startswith(wanted), (tag, name, value)
    assert not re.search(r"url\(|@import|expression", page.style)


def test_what_models_and_people_wrote_is_text(tmp_path: Path) -> None:
    few = measurement("base", attacks=("gcg", "jre"), judges=("exact", EVIL), n=6, layers=4)
    base = whole(few, lambda _: EVIL)
    evil = [replace(prompt, text=EVIL + prompt.text) for prompt in base.attacks["gcg"].prompts]
    gcg = replace(base.attacks["gcg"], prompts=tuple(evil))
    impossible = replace(base.attacks["jre"], not_possible=EVIL, prompts=(), attacked=())
    base = replace(base, attacks={**base.attacks, "gcg": gcg, EVIL: gcg, "jre": impossible})
    folder = run_folder(
        tmp_path / "<b>name",
        comparison=compare(base, replace(base, model="tuned", kl_to_base={})),
        config=CONFIG | {"model": {"name_or_path": EVIL}, "seed": EVIL},
        stages=[STAGES[0] | {"reason": EVIL}],
        words=[f"model.system_prompt={EVIL}"],
    )
    page = page_of(folder)
    assert_safe(page)
    # As text it is all there, where a person looks for it.
    assert page.text.count(EVIL) > 30
    assert "<b>name" in page.titles[0]
    assert any(EVIL in text for text in page.closed)


@pytest.mark.usefixtures("no_pictures")
def test_text_that_would_turn_or_hide_what_follows_is_shown_as_signs(tmp_path: Path) -> None:
    assert visible("a\x00\x1b[31m\u202eb\ud800\n\t") == "a⟨U+0000⟩⟨U+001B⟩[31m⟨U+202E⟩b⟨U+D800⟩\n\t"
    turned = small_comparison(say=lambda _: "\u202eevil\x07")
    page = page_of(run_folder(tmp_path / "run", comparison=turned))
    assert "⟨U+202E⟩evil⟨U+0007⟩" in page.text and "\u202e" not in page.text


def test_a_complete_run_is_told_pictures_first(complete: Path) -> None:
    page = read_page((complete / "report.html").read_text("utf-8"))
    assert_safe(page)
    assert page.titles[1:] == [
        "In short", "What attacks get out of it", "What it can still do",
        "What to be careful about",
        "How the training went", "Inside the model", "All figures", "What the models said",
        "What was run",
    ]  # fmt: skip
    shown = " | ".join(page.images)
    for words in (
        "recovered by scav_worst against relative shift", "Outcomes by attack: base",
        "Outcomes by attack: tuned", "Loss", "KL against its threshold", "Distance of harmful",
        "linear probe", "layer 2: base", "layer 4: tuned", "Shift by layer, relative",
        "Outcomes of requests that are not harmful",
    ):  # fmt: skip
        assert words in shown, words
    for words in (
        "Stage 2 separated layer 4 in 3 steps and ended when the KL reached its threshold",
        "Harmful answers recovered, small shifts only", "looks harmful only: refused",
        "a/model", "torch 2.9", "2, 4 of 4", "Longer hidden states", "8.0 times as long",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.commands == ["python -m es2_lightning.train loss.kl_weight=1"]


@pytest.mark.usefixtures("no_pictures")
def test_harmful_answers_wait_for_a_click(tmp_path: Path) -> None:
    comparison = small_comparison(say=lambda _: "WHAT IT SAID")
    page = page_of(run_folder(tmp_path / "run", comparison=comparison))
    # Every attack's examples are closed, and in them harmful answers once more.
    assert page.text.count("May be harmful: click to read") >= 4
    outside = page.text.split("What the models said")[0]
    assert "WHAT IT SAID" not in outside
    refused = small_comparison(attacks=(), say=lambda _: "I cannot")
    page = page_of(run_folder(tmp_path / "refused", comparison=refused))
    assert "May be harmful" not in page.text and "I cannot" in page.text


def test_it_fits_a_phone_a_dark_room_and_every_eye(complete: Path) -> None:
    text = (complete / "report.html").read_text("utf-8")
    page = read_page(text)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media (max-width: 40rem)" in page.style
    assert "@media (prefers-color-scheme: dark)" in page.style
    assert "overflow-x: auto" in page.style  # Wide tables scroll; the page does not.
    assert page.images and all(page.images)
    # What colours say, words say too.
    for words in ("▲ better", "■ no sure change", "! Look here"):
        assert words in page.text, words


@pytest.mark.parametrize(
    "changes, told, absent",
    [
        ({"comparison": None}, "It has not been measured", "In short"),
        ({"metrics": [], "stages": []}, "In short", "How the training went"),
        ({"stages": STAGES[:1]}, "Stage 1 separated layer 2", "Stage 2"),
        ({"comparison": None, "finished": False}, "did not come to its end", "In short"),
        (
            {"comparison": None, "config": CONFIG | {"evaluate": {"enabled": True}}},
            "did not come to its end",
            "In short",
        ),
        ({"words": None}, "The words that it was started with are lost", "To repeat it"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_what_is_missing_is_left_out(
    changes: dict[str, object], told: str, absent: str, tmp_path: Path
) -> None:
    given = {"comparison": small_comparison(attacks=()), **changes}
    page = page_of(run_folder(tmp_path / "run", **given))  # type: ignore[arg-type]
    assert_safe(page)
    assert told in page.text and absent not in page.text


def test_another_method_is_told_as_such(tmp_path: Path) -> None:
    metrics = [
        {
            "step": i,
            "train/loss": 2.0 - i,
            "train/answer_loss": 1.0,
            "train/refusal_loss": 1.0 - i,
        }
        for i in range(3)
    ]
    folder = run_folder(tmp_path / "run", metrics=metrics, stages=[])
    hydra = {"hydra": {"runtime": {"choices": {"method": "stl", "data": "organism"}}}}
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps(hydra))
    page = page_of(folder)
    assert "on right answers and on refusals (STL)" in page.text
    assert "pushes the hidden states" not in page.text
    assert page.images == [
        "Loss over the training steps",
        "Terms of the loss over the training steps",
    ]


@pytest.mark.usefixtures("no_pictures")
def test_an_empty_folder_and_damaged_files_cost_no_page(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "did not come to its end" in page_of(tmp_path / "empty").text
    folder = run_folder(tmp_path / "damaged", comparison=small_comparison(attacks=()))
    (folder / "evaluation" / "results.json").write_text('{"rows": [')
    (folder / "versions.json").write_text("[]")
    (folder / "config.yaml").write_text("a: [")
    (folder / "metrics.jsonl").write_text('{"step": 0, "train/loss": 1}\n{"step": 1, "tr')
    text = page_of(folder).text
    for name in ("results.json", "versions.json cannot", "config.yaml cannot"):
        assert name in text, name


@pytest.mark.usefixtures("no_pictures")
def test_a_model_alone_and_an_evaluation_that_stands_in_a_run(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    write_results(compare(whole(measurement("base", attacks=("gcg",), layers=4))), alone)
    config = {"model": {"name_or_path": "a/model"}}
    (alone / "config.yaml").write_text(json.dumps(config))
    page = page_of(alone)
    assert "was attacked, to see what it gives away" in page.text
    assert "gcg" in page.text and "→" not in page.text

    folder = run_folder(tmp_path / "run", comparison=small_comparison(attacks=()))
    (folder / "evaluation" / ".hydra").mkdir()
    words = "- run=x\n- attack=[direct,gcg]\n- model.name_or_path='${run_model:${run}}'\n"
    (folder / "evaluation" / ".hydra" / "overrides.yaml").write_text(words)
    assert report_run(folder / "evaluation") == folder / "report.html"
    again = "python -m es2_lightning.evaluate run=x 'attack=[direct,gcg]'"
    assert read_page((folder / "report.html").read_text("utf-8")).commands[1] == again


def test_a_job_is_repeated_alone_and_from_the_start(tmp_path: Path) -> None:
    words = ["sweep=seeds", "seed=2", "ckpt_path=last", "model.name_or_path=a b"]
    run = read_run_files(run_folder(tmp_path / "run", words=words))
    assert run.repeat == (
        "python -m es2_lightning.train sweep=seeds seed=2 'model.name_or_path=a b' hydra.mode=RUN"
    )


@pytest.mark.usefixtures("no_pictures")
def test_answers_while_training_are_told(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    said = {0: "I cannot", 3: "I cannot", 6: EVIL + "\u2028"}
    rows = [
        {"step": step, "epoch": 0, "stage": 0, "kind": kind, "prompt": kind + "?", "output": text}
        for step, text in said.items()
        for kind in ("harmful", "looks_harmful")
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(lines + '{"step": 9, "ki', "utf-8")
    page = page_of(folder)
    assert_safe(page)
    text = " ".join(page.text.split())
    assert "Asked (looks harmful) looks_harmful? from the start to step 3 I cannot" in text
    assert f"after 6 steps {EVIL}" in text
    assert "Asked (harmful) harmful? from the start to step 3 May be harmful" in text


def test_every_drawn_key_is_one_that_a_run_logs() -> None:
    assert all(described(key) for keys in SHOWN.values() for key in keys)


@pytest.mark.usefixtures("no_pictures")
def test_what_was_found_in_the_prompts_is_told(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", comparison=small_comparison(attacks=()))
    copy = Finding("copy", "dropped", "harmful", "a", split="train", other="a", other_in="bench")
    found = Findings(
        (copy,),
        sizes={"harmful": {"train": 7}},
        evaluation={"bench": 9},
        surface={"before": Separability(0.97, 0.99)},
    )
    (folder / "prompts.json").write_text(found.as_json(), "utf-8")
    text = " ".join(page_of(folder).text.split())
    assert "! Look here: Told apart by punctuation." in text and "accuracy of 97 %" in text
    assert "1 prompts overlap with bench (9 prompts)" in text
    clean = replace(found, found=(), surface={"before": Separability(0.5, 0.5)})
    (folder / "prompts.json").write_text(clean.as_json(), "utf-8")
    text = " ".join(page_of(folder).text.split())
    assert "✓ Fine: Told apart by punctuation." in text
    assert "✓ Fine: The same prompts in training and test." in text


def test_a_page_that_fails_costs_nothing_else(
    complete: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("es2_lightning.reports.page.run_page.tiles", lambda _: 1 / 0)
    assert report_run(complete) is None
    assert f"The page of {complete} could not be written" in caplog.text
