"""`report.html`: what a run came to, for whoever never read the code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from es2_lightning.evaluation.saved_results import GENERATIONS
from es2_lightning.evaluation.verdict import conclusions
from es2_lightning.reports.page import drawings, tables
from es2_lightning.reports.page.about import config_text, facts, stage_sentences, versions_text
from es2_lightning.reports.page.checks import checks
from es2_lightning.reports.page.columns import Column, columns_of_run
from es2_lightning.reports.page.drawings import Picture, drawn
from es2_lightning.reports.page.examples import example_sections
from es2_lightning.reports.page.rendering import write_page
from es2_lightning.reports.page.run_files import EVALUATION, RunFiles, read_run_files
from es2_lightning.reports.page.samples import sampled
from es2_lightning.reports.page.tiles import tiles
from es2_lightning.reports.page.words import JUDGES, METHODS

log = logging.getLogger(__name__)
REPORT = "report.html"
SECTIONS = {
    "short": "In short",
    "attacks": "Attacks",
    "kept": "What it kept",
    "checks": "Careful",
    "training": "Training",
    "layers": "Inside",
    "figures": "All figures",
    "examples": "Examples",
    "run": "What was run",
}


def report_run(folder: Path) -> Path | None:
    """Write a run's page, and say where; a page that fails costs the run nothing but the page.

    Args:
        folder: Of a run of `train`, of an evaluation, or the evaluation inside a run's folder:
            then the page is the run's.

    Returns:
        The page; None where it could not be written.
    """
    try:
        page = write_run_page(read_run_files(_of_page(folder)))
    except Exception:
        log.exception("The page of %s could not be written", folder)
        return None
    log.info("The report: %s", page)
    return page


def write_run_page(run: RunFiles) -> Path:
    """Write `report.html` into the run's folder, from what is there."""
    comparison = run.comparison
    columns = columns_of_run(comparison) if comparison else []
    found = checks(run)
    content: dict[str, Any] = {
        "measured": comparison is not None,
        "tiles": tiles(comparison) if comparison else [],
        # A number and its sign stay on one line.
        "conclusions": [
            sentence.replace(" %", "\u00a0%")
            for sentence in (conclusions(comparison) if comparison else [])
        ],
        "separates": any("train/separation" in row for row in run.metrics),
        "checks": found,
        "warned": [check.title for check in found if check.status == "warning"],
        "stages": stage_sentences(run),
        "samples": sampled(run),
        "tables": page_tables(columns),
        "judged": judged(columns),
        "examples": example_sections(columns) if columns else [],
        "last": columns[-1].label if columns else "",
        "generations": GENERATIONS if run.command == "evaluate" else f"{EVALUATION}/{GENERATIONS}",
        "repeat": run.repeat,
        "measure_again": run.measure_again,
        "facts": facts(run),
        "config": config_text(run),
        "versions": versions_text(run),
        **_pictures(run, columns),
    }
    there = {
        "short": content["measured"],
        "attacks": content["measured"],
        "training": content["training"] or content["stages"],
        "layers": content["layers"] or content["projections"] or content["shifts"],
        "figures": content["tables"],
    }
    sections = [
        (name, words)
        for name, words in SECTIONS.items()
        if there.get(name, content.get(name, True))
    ]
    return write_page(
        run.folder / REPORT,
        "run.html",
        title=f"Run {run.name}" if run.command == "train" else f"Evaluation {run.name}",
        kicker="es2-lightning",
        lead=_lead(run),
        sections=sections,
        **content,
    )


def page_tables(columns: list[Column]) -> list[tables.PageTable]:
    """All tables of a page, the headline first."""
    if not columns:
        return []
    found = [
        tables.headline_table(columns),
        tables.attacks_table(columns),
        tables.harmless_table(columns),
        *tables.detail_tables(columns),
    ]
    return [table for table in found if table]


def judged(columns: list[Column]) -> str:
    """Who judged, as a sentence."""
    if not columns:
        return ""
    names = dict.fromkeys(judge for c in columns for judge in c.measured.judges)
    first, *others = (f"{n} ({JUDGES[n]})" if n in JUDGES else n for n in names)
    return f"Judge: {first}." + (f" Also asked: {', '.join(others)}." if others else "")


def _pictures(run: RunFiles, columns: list[Column]) -> dict[str, list[Picture]]:
    made = {"training": drawings.training_drawings(run.metrics)}
    made |= {name: [] for name in ("curves", "outcomes", "kept", "layers", "projections", "shifts")}
    if columns:
        made |= {
            "curves": drawings.budget_drawings(columns),
            "outcomes": drawings.outcome_drawings(columns),
            "kept": drawings.kept_drawings(columns),
            "layers": drawings.layer_drawings(columns, run.layers),
            "projections": drawings.projection_drawings(columns, run.layers),
            "shifts": drawings.shift_drawings(columns, run.layers),
        }
    return {name: drawn(some) for name, some in made.items()}


def _lead(run: RunFiles) -> str:
    return " ".join(_lead_sentences(run))


def _lead_sentences(run: RunFiles) -> Iterator[str]:
    if run.command == "train":
        method = str(run.choices.get("method", "es2"))
        yield METHODS.get(method, f"A language model was fine-tuned, with the method {method}.")
    else:
        yield "A language model was attacked, to see what it gives away."
    if run.comparison is None:
        yield "It has not been measured: there are no figures before and after."
    elif run.comparison.tuned is not None:
        yield "This page compares the model before (base) and after (tuned), on test prompts."


def _of_page(folder: Path) -> Path:
    """The run's folder, where this is the evaluation inside it."""
    inside = folder.name == EVALUATION and (folder.parent / "layers.json").exists()
    return folder.parent if inside else folder
