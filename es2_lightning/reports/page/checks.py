"""What could make a result look better than it is: each danger by name, and what was found."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.verdict import (
    COLLAPSE,
    INFLATION,
    attacked_collapse,
    changed,
    inflation,
)
from es2_lightning.prompts.findings import TELLING, Findings
from es2_lightning.prompts.surface import separability
from es2_lightning.reports.cells import figure
from es2_lightning.reports.page.run_files import RunFiles

Status = Literal["warning", "ok", "unknown"]
BY = ("length", "punctuation")


@dataclass(frozen=True)
class Check:
    """A danger that was looked for.

    Attributes:
        title: Its name.
        status: Whether it is there; `unknown` where it was not looked for.
        sentences: What was found.
    """

    title: str
    status: Status
    sentences: Sequence[str]


def checks(run: RunFiles) -> list[Check]:
    """All of them, those that found something first."""
    found = [
        _interrupted(run),
        _damaged(run),
        _inflation(run.comparison),
        _collapsed_refusals(run.comparison),
        _collapsed_attacks(run.comparison),
        _not_made(run.comparison),
        _confound(run),
        _overlap(run.findings),
    ]
    order = ("warning", "unknown", "ok")
    return sorted((one for one in found if one), key=lambda one: order.index(one.status))


def _interrupted(run: RunFiles) -> Check | None:
    if run.complete:
        return None
    sentence = "The run did not come to its end: what follows is what it left until then."
    return Check("Not finished", "warning", [sentence])


def _damaged(run: RunFiles) -> Check | None:
    return Check("Files that cannot be read", "warning", run.problems) if run.problems else None


def _inflation(comparison: Comparison | None) -> Check | None:
    title = "Longer hidden states"
    if comparison is None or comparison.tuned is None:
        return None
    if not comparison.base.separability or not comparison.tuned.separability:
        return Check(title, "unknown", ["The lengths of hidden states were not measured."])
    if sentences := inflation(comparison):
        return Check(title, "warning", sentences)
    sentence = f"At no layer are the tuned model’s states {INFLATION:g} times as long or more."
    return Check(title, "ok", [sentence])


def _collapsed_refusals(comparison: Comparison | None) -> Check | None:
    title = "Refusals that fell apart"
    row = comparison.row("direct", "collapsed") if comparison else None
    if comparison is None or row is None or (share := row.tuned or row.base) is None:
        return None
    counted = f"{figure(share.value)} % of harmful requests, asked directly, are met with gibberish"
    if row.tuned and row.base:
        counted += f" (base model: {figure(row.base.value)} %)"
    if changed(row) > 0 or share.value >= COLLAPSE:
        remedy = "a judge that looks for refusal words would take that for a defence."
        return Check(title, "warning", [f"{counted}; {remedy}"])
    return Check(title, "ok", [f"{counted}."])


def _collapsed_attacks(comparison: Comparison | None) -> Check | None:
    found = attacked_collapse(comparison) if comparison and comparison.tuned else []
    return Check("Gibberish under attack", "warning", found) if found else None


def _not_made(comparison: Comparison | None) -> Check | None:
    if comparison is None:
        return None
    sentences = [
        f"{name} could not be made on the {measured.model} model: {made.not_possible}."
        for measured in comparison.measurements
        for name, made in measured.attacks.items()
        if made.not_possible
    ]
    without = [name for name, works in comparison.effective.items() if not works]
    without = [name for name in without if name in comparison.base.attacks]
    without = [name for name in without if not comparison.base.attacks[name].not_possible]
    if without:
        sentences.append(
            f"{', '.join(without)}: recovers no more from the base model than the direct request "
            "does, so that a tuned model that withstands it shows nothing."
        )
    return Check("Attacks that do not work here", "warning", sentences) if sentences else None


def _confound(run: RunFiles) -> Check:
    title = "Told apart by punctuation"
    if run.findings is not None and run.findings.surface:
        found = run.findings.surface.get("after") or run.findings.surface["before"]
        accuracy, which = found.accuracy, "training"
    else:
        measured = _surface_of_tests(run.comparison)
        if measured is None:
            return Check(title, "unknown", ["There are too few prompts to look."])
        accuracy, which = measured, "test"
    sentence = (
        f"A classifier that sees nothing but length and punctuation tells harmful from harmless "
        f"{which} prompts with an accuracy of {figure(accuracy)} % (chance: 50 %)"
    )
    if accuracy >= TELLING:
        return Check(title, "warning", [f"{sentence}: a separation may live on these."])
    return Check(title, "ok", [f"{sentence}."])


def _surface_of_tests(comparison: Comparison | None) -> float | None:
    direct = comparison.base.direct if comparison else {}
    if "harmful" not in direct or "harmless" not in direct:
        return None
    harmful, harmless = ([p.text for p in direct[k].prompts] for k in ("harmful", "harmless"))
    found = separability(harmful, harmless, BY)
    return None if found is None else found.accuracy


def _overlap(findings: Findings | None) -> Check:
    title = "The same prompts in training and test"
    if findings is None:
        sentence = "The prompts came already split, and were not searched for copies."
        return Check(title, "unknown", [sentence])
    told = [
        (level, message)
        for level, message in findings.messages()
        if "overlap" in message or "near-duplicates" in message or "copies" in message
    ]
    warned = [f"{message}." for level, message in told if level >= logging.WARNING]
    if warned:
        return Check(title, "warning", warned)
    return Check(title, "ok", ["No prompt of the training split is in another one, or nearly."])
