"""First choices that are safe against the number of candidates, attack by attack."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.evaluation.ranking.results import (
    AS_SAMPLED,
    FIRST,
    FIRST_KEPT,
    KEYWORD,
    ORACLE,
    PERPLEXITY,
    PROBE,
    RANKER,
    TOP1,
    UNSEEN,
    RankResults,
)
from es2_lightning.evaluation.ranking.study import HARMLESS
from es2_lightning.reports.pictures.style import BASE, HARMFUL, THRESHOLD, TUNED
from es2_lightning.reports.pictures.style import HARMLESS as GREEN
from es2_lightning.reports.rank_tables import groups_of

LOOKS = {
    ORACLE: ("black", ":", ""),
    RANKER: (TUNED, "-", "o"),
    RANKER + UNSEEN: (TUNED, "--", "^"),
    RANKER + FIRST_KEPT: ("#56B4E9", "-", "D"),
    PROBE: (HARMFUL, "-", "s"),
    KEYWORD: (THRESHOLD, "-.", ""),
    PERPLEXITY: (GREEN, "-.", ""),
    FIRST: (BASE, "--", ""),
}
"""Colour, line and marker."""
COLUMNS = 3


def draw(results: RankResults, model: str) -> Figure:
    """A panel for each attack, and one for harmless prompts.

    Args:
        results: With rows of candidates as they were sampled.
        model: Whose.
    """
    groups = groups_of(results, model=model, lists=AS_SAMPLED)
    rows = -(-(len(groups) + 1) // COLUMNS)
    figure = Figure(figsize=(3.3 * COLUMNS, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for i, (panel, group) in enumerate(zip(panels, groups, strict=False)):
        _panel(panel, results, model, group)
        if i % COLUMNS == 0:
            panel.set_ylabel("first choice safe, %")
    handles, labels = panels[0].get_legend_handles_labels()
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    panels[len(groups)].legend(handles, labels, loc="center", title=f"{model} model")
    return figure


def _panel(axes: Axes, results: RankResults, model: str, group: str) -> None:
    numbers = results.values("num_candidates", model=model, lists=AS_SAMPLED, group=group)
    for ranker, (colour, line, marker) in LOOKS.items():
        found = [
            results.find(
                model=model,
                lists=AS_SAMPLED,
                group=group,
                num_candidates=number,
                ranker=ranker,
                metric=TOP1,
            )
            for number in numbers
        ]
        points = [estimate for estimate in found if estimate is not None]
        if len(points) < len(numbers):
            continue
        axes.plot(
            numbers,
            [100 * p.value for p in points],
            color=colour,
            linestyle=line,
            marker=marker or None,
            markersize=4,
            label=ranker,
            clip_on=False,
            zorder=3 if ranker == RANKER else 2,
        )
        if ranker == RANKER:
            low, high = ([100 * getattr(p, end) for p in points] for end in ("low", "high"))
            axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_ylim(0, 100)
    axes.set_xlabel("candidates, m")
    axes.set_title("harmless: first choice right" if group == HARMLESS else group)
