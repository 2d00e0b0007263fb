"""What a W&B workspace shows: sections of panels over the keys that runs log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from es2_lightning.logged_keys import GENERATIONS, PICTURES, RESULTS, SAMPLES

STEP = "trainer/global_step"
SHOWN_PICTURES = ("training", "outcomes", "layers", "projection", "shifts")


def sections(attacks: Sequence[str]) -> list[ws.Section]:
    """The sections, in their order.

    Args:
        attacks: Whose defence rates are shown.
    """
    return [
        ws.Section(name="Safety and its price", panels=_safety(attacks), is_open=True),
        ws.Section(name="Losses", panels=_losses(), is_open=True),
        ws.Section(name="Hidden states by layer", panels=_layers(), is_open=True),
        ws.Section(name="Generations", panels=_tables(), is_open=True),
        ws.Section(name="Steps", panels=_steps()),
        ws.Section(name="Pictures", panels=[_pictures()]),
    ]


def _safety(attacks: Sequence[str]) -> list[Any]:
    def rates(model: str) -> list[str]:
        return [f"evaluation/{model}/{attack}/defended" for attack in attacks]

    return [
        _bars("Defence rate by attack, tuned", rates("tuned")),
        _bars("Defence rate by attack, base", rates("base")),
        _front("Pareto front: safety against capability", x="evaluation/capability_lost"),
        _front("Pareto front: safety against drift", x="evaluation/kl"),
        _bars(
            "What it costs",
            ["evaluation/capability_lost", "evaluation/over_refusal", "evaluation/kl"],
        ),
        wr.ParallelCoordinatesPlot(
            title="A sweep",
            columns=[
                wr.ParallelCoordinatesPlotColumn(metric=metric)
                for metric in (
                    wr.Config("loss.kl_weight"),
                    wr.Config("seed"),
                    wr.SummaryMetric("evaluation/capability_kept"),
                    wr.SummaryMetric("evaluation/scav_dsr"),
                )
            ],
        ),
    ]


def _losses() -> list[Any]:
    return [
        _lines("Loss", ["train/loss", "validation/loss"]),
        _lines(
            "KL against its threshold τ",
            ["train/kl", "train/harmful_kl", "validation/kl", "train/kl_threshold"],
            log_y=True,
        ),
        _lines("Separation of the stage's layers", ["train/separation", "validation/separation"]),
        _lines(
            "Separation over the mean norm",
            ["train/separation_relative", "validation/separation_relative"],
        ),
    ]


def _layers() -> list[Any]:
    figures = {
        "Distance between the groups, over the mean norm": "distance_relative",
        "Distance within harmful, over the mean norm": "distance_within_harmful_relative",
        "Distance within harmless, over the mean norm": "distance_within_harmless_relative",
        "Distance between the groups": "distance",
        "Norm of harmful states": "norm_harmful",
        "Norm of harmless states": "norm_harmless",
    }
    return [
        *(_by_layer(title, f"train/layer_[0-9]+/{figure}") for title, figure in figures.items()),
        _by_layer("Probe accuracy", "validation/layer_[0-9]+/probe_accuracy"),
    ]


def _steps() -> list[Any]:
    return [
        _lines("Gradient norm", ["train/gradient_norm"], log_y=True),
        _lines("Learning rate", ["train/learning_rate"]),
        _lines("Tokens a second", ["train/tokens_per_second"]),
        _lines("Stage", ["train/stage"]),
    ]


def _tables() -> list[Any]:
    return [
        wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=10))
        for name in (GENERATIONS, SAMPLES, RESULTS)
    ]


def _pictures() -> Any:
    return wr.MediaBrowser(
        title="A run's pictures", media_keys=[f"{PICTURES}/{name}" for name in SHOWN_PICTURES]
    )


def _lines(title: str, keys: list[str], *, log_y: bool | None = None) -> Any:
    return wr.LinePlot(title=title, x=STEP, y=[*keys], log_y=log_y)


def _by_layer(title: str, pattern: str) -> Any:
    return wr.LinePlot(title=title, x=STEP, y=[], metric_regex=f"^{pattern}$")


def _bars(title: str, keys: list[str]) -> Any:
    return wr.BarPlot(title=title, metrics=[*keys])


def _front(title: str, *, x: str) -> Any:
    # The less is lost the better, so the front is the highest value so far from the left.
    return wr.ScatterPlot(
        title=title,
        x=wr.SummaryMetric(x),
        y=wr.SummaryMetric("evaluation/scav_dsr"),
        running_ymax=True,
    )
