"""The pictures of a page: one panel each, so that they stand below each other on a phone."""

from __future__ import annotations

import base64
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.evaluation.attack_rows import curve_of
from es2_lightning.evaluation.attacks.scav_worst import AXIS
from es2_lightning.evaluation.headline_figures import FIGURES
from es2_lightning.evaluation.verdict import WORST
from es2_lightning.reports.page.columns import Column
from es2_lightning.reports.pictures import (
    budget_curve,
    kept,
    layers,
    outcomes,
    pareto,
    projection,
    shifts,
    training,
)
from es2_lightning.reports.pictures.style import Look, house_style, one_panel

log = logging.getLogger(__name__)
DPI = 150
CSS_DPI = 96
"""Pixels of a page to an inch."""


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Attributes:
        title: What it shows, for who cannot see it, too.
        uri: A PNG as a `data:` address.
        width: In pixels of the page, at its natural size.
    """

    title: str
    uri: str
    width: int


Drawing = tuple[str, Callable[[], Figure | None]]
"""What a picture shows, and what draws it; None: there is nothing to draw."""


def drawn(drawings: Sequence[Drawing]) -> list[Picture]:
    """Each as a PNG; one that cannot be drawn is left out and reported in the log."""
    pictures = []
    with house_style():
        for title, draw in drawings:
            try:
                figure = draw()
                if figure is not None:
                    pictures.append(_picture(title, figure))
            except Exception:
                # The figures stand in the tables; a broken picture must not cost the page.
                log.exception("The picture %r could not be drawn", title)
    return pictures


@dataclass(frozen=True)
class ParetoPoint:
    """A run in the picture of safety against capability; see `pareto.Drawn`."""

    number: int
    layers: str
    kl_weight: float | None
    figures: Mapping[str, float]


def pareto_drawings(points: Sequence[ParetoPoint]) -> list[Drawing]:
    """Safety against the capability kept, a picture for each measure of safety."""
    found = {
        gain: f"{FIGURES[gain].words} against {FIGURES[pareto.PRICE].words}"
        for gain in pareto.GAINS
        if any(not math.isnan(p.figures[gain] + p.figures[pareto.PRICE]) for p in points)
    }
    return [
        (title, partial(pareto.draw, points, [gain], what="runs")) for gain, title in found.items()
    ]


def budget_drawings(columns: Sequence[Column]) -> list[Drawing]:
    """Harmful answers against what the attacker may spend, the headline's attack first."""
    axes = {key: None for c in columns for key in c.comparison.base_budgets}
    found = sorted(axes, key=lambda key: key != (WORST, AXIS))
    looks = [column.look for column in columns]
    return [
        (
            f"Harmful answers recovered by {attack} against {axis.replace('_', ' ')}",
            partial(
                one_panel,
                partial(budget_curve.draw_curves, models=looks, attack=attack, axis=axis),
                size=(5.6, 4.2),
                columns=2,
            ),
        )
        for attack, axis in found
        if any(curve_of(column.measured, attack, axis) for column in columns)
    ]


def outcome_drawings(columns: Sequence[Column]) -> list[Drawing]:
    """What became of harmful requests under each attack, a picture for each model."""
    return [
        (
            f"Outcomes by attack: {column.label}",
            partial(outcomes.draw, column.comparison, column.place, name=column.label),
        )
        for column in columns
    ]


def training_drawings(metrics: Sequence[dict[str, Any]]) -> list[Drawing]:
    """Losses, separation and KL over the steps."""
    titles = {
        "loss": "Loss over the training steps",
        "separation": "Separation over the training steps",
        "kl": "KL against its threshold τ over the training steps",
        "terms": "Terms of the loss over the training steps",
    }
    return [
        (
            title,
            partial(one_panel, partial(training.PANELS[name], metrics=metrics), size=(4.2, 3.4)),
        )
        for name, title in titles.items()
        if name in training.panels_of(metrics)
    ]


def kept_drawings(columns: Sequence[Column]) -> list[Drawing]:
    """Over-refusal and capability."""
    looks = [column.look for column in columns]
    return [
        ("Outcomes of requests that are not harmful", partial(kept.draw_harmless, looks)),
        ("Tasks solved", partial(kept.draw_capability, looks)),
    ]


def runs_training_drawings(runs: Sequence[training.Curve]) -> list[Drawing]:
    """Separation and KL of several runs."""
    titles = {
        "separation": "Separation over the training steps, by run",
        "kl": "KL on harmless requests over the training steps, by run",
    }
    return [
        (title, partial(one_panel, partial(training.draw_runs, runs=runs, panel=name), columns=2))
        for name, title in titles.items()
        if any(name in training.panels_of(run.metrics) for run in runs)
    ]


def layer_drawings(columns: Sequence[Column], separated: Sequence[int]) -> list[Drawing]:
    """Distance and probe accuracy by layer."""
    looks = [column.look for column in columns if column.measured.separability]
    if not looks:
        return []
    return [
        (
            title,
            partial(one_panel, partial(draw, models=looks, layers=separated)),
        )
        for title, draw in (
            ("Distance of harmful and harmless states by layer", layers.draw_distance),
            ("Accuracy of a linear probe by layer", layers.draw_accuracy),
        )
    ]


def projection_drawings(columns: Sequence[Column], separated: Sequence[int]) -> list[Drawing]:
    """Harmful and harmless states at each target layer, model beside model."""
    return [
        (
            f"Hidden states at layer {layer}: {column.label}",
            partial(one_panel, partial(_projection, column=column, layer=layer), size=(4.2, 3.6)),
        )
        for layer in projection.drawn_layers(columns[-1].comparison, separated)
        for column in columns
        if layer in {p.layer for p in column.measured.projections}
    ]


def shift_drawings(columns: Sequence[Column], separated: Sequence[int]) -> list[Drawing]:
    """How far an attack had to shift the states, absolute and relative."""
    attack = shifts.shifting_attack(columns[-1].comparison)
    if attack is None or not all(column.measured.separability for column in columns):
        return []
    looks = [column.look for column in columns]
    return [
        (
            f"Shift by layer, {title}, {attack}",
            partial(
                one_panel,
                partial(_shifts, looks=looks, attack=attack, metric=metric, separated=separated),
            ),
        )
        for metric, (title, _) in shifts.PANELS.items()
    ]


def _shifts(
    axes: Axes, *, looks: Sequence[Look], attack: str, metric: str, separated: Sequence[int]
) -> None:
    shifts.draw_shifts(axes, looks, attack, metric, separated)
    axes.set_title(f"Shift by {attack}, {shifts.PANELS[metric][0]}")


def _projection(axes: Axes, *, column: Column, layer: int) -> None:
    found = next(p for p in column.measured.projections if p.layer == layer)
    projection.draw_projection(axes, found)
    axes.set_title(f"{column.label}, layer {layer}")


def _picture(title: str, figure: Figure) -> Picture:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    encoded = base64.b64encode(image.getvalue()).decode()
    width = round(CSS_DPI * figure.get_size_inches()[0])
    return Picture(title, f"data:image/png;base64,{encoded}", width)
