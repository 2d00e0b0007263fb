"""The table and the pictures say what was measured, and never fail a run."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from es2_lightning.evaluation.comparison import Comparison, compare
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.reports.run_report import write_report
from es2_lightning.reports.tables import SECTIONS, cell, comparison_table

from ..evaluation.test_before_after import small
from ..tiny_models import tiny_chat_model, tiny_splits

METRICS = [
    {"step": i, "train/loss": -i / 10, "train/kl": i / 100, "train/stage": float(i > 2),
     "train/kl_threshold": 0.05, "train/separation": 1 + i / 10, "train/harmful_kl": i / 200}
    for i in range(6)
]  # fmt: skip
PICTURES = {"budget_curve.png", "layers.png", "projection.png", "training.png"}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    base, tuned = (
        small().measure(tiny_chat_model(seed=seed), tiny_splits(), model=name)
        for seed, name in enumerate(("base", "tuned"))
    )
    return compare(base, tuned)


def printed(comparison: Comparison) -> str:
    file = io.StringIO()
    Console(file=file, width=80).print(comparison_table(comparison))
    return file.getvalue()


def test_the_table_holds_every_figure_and_fits(comparison: Comparison) -> None:
    text = printed(comparison)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80 and "…" not in text
    for line in (line for lines in SECTIONS.values() for line in lines):
        row = comparison.row(line.attack, line.metric)
        assert row is not None, line
        # A row of the table may share its words with one of another section, but not its numbers.
        wanted = [cell(e, line.unit) for e in (row.base, row.tuned)]
        assert any(
            line.words.split("{")[0].strip() in shown and all(w in shown for w in wanted)
            for shown in text.splitlines()
        ), line


@pytest.mark.parametrize(
    ("estimate", "unit", "text"),
    [
        (Estimate(0.954, 0.842, 0.991, 20), "percent", "95 [84–99]"),
        (Estimate(0.1234, 0.1, 0.2, 20), "number", "0.12 [0.10–0.20]"),
        (Estimate(2.5, 2.0, math.inf, 20), "times", "2.50× [2.00–∞]"),
        (Estimate(math.inf, math.nan, math.nan, 20), "number", "∞"),
        (Estimate(math.nan, math.nan, math.nan, 0), "percent", "–"),
        (None, "percent", "–"),
    ],
)
def test_a_cell(estimate: Estimate | None, unit: str, text: str) -> None:
    assert cell(estimate, unit) == text


def test_the_report_is_written_and_its_words_are_the_verdicts(
    comparison: Comparison, tmp_path: Path
) -> None:
    written = write_report(
        comparison,
        tmp_path,
        separated_layers=[2, 4],
        metrics=METRICS,
        console=Console(file=io.StringIO()),
    )
    assert {path.name for path in written} == {"table.txt"} | PICTURES
    for path in (tmp_path / "pictures").iterdir():
        with Image.open(path) as picture:
            assert picture.width > 600 and len(picture.convert("L").getcolors() or []) > 10
    text = (tmp_path / "table.txt").read_text(encoding="utf-8")
    # Two random models: neither is safer, and the report must say so.
    assert "Not safer in the worst case" in text
    assert "\x1b" not in text


def test_names_with_markup_are_shown_as_they_are(comparison: Comparison) -> None:
    named = replace(comparison, tuned=replace(comparison.tuned, model="[red]tuned[/oops]"))
    assert "[red]tuned[/oops]" in printed(named)


def test_without_scav_the_report_is_still_made(comparison: Comparison, tmp_path: Path) -> None:
    base, tuned = (
        replace(m, scav=None, no_scav="no layer above P1 = 0.9")
        for m in (comparison.base, comparison.tuned)
    )
    written = write_report(
        compare(base, tuned), tmp_path, separated_layers=[], console=Console(file=io.StringIO())
    )
    assert {path.name for path in written} == {"table.txt"} | PICTURES - {"training.png"}
    assert "No SCAV: no layer above P1" in " ".join(
        (tmp_path / "table.txt").read_text(encoding="utf-8").split()
    )


def test_a_broken_picture_is_left_out(
    comparison: Comparison, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = write_report(
        comparison,
        tmp_path,
        separated_layers=[2],
        metrics=[{"step": "not a number", "train/loss": object()}],
        console=Console(file=io.StringIO()),
    )
    assert {path.name for path in written} == {"table.txt"} | PICTURES - {"training.png"}
    assert "The picture training could not be drawn" in caplog.text
    assert not list((tmp_path / "pictures").glob(".*"))
