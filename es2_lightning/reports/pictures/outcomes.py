"""What became of the harmful prompts under each attack, before and after."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.reports.attack_table import NOT_EFFECTIVE, Shown, shown_attacks
from es2_lightning.reports.cells import figure as figure_of
from es2_lightning.reports.cells import shortened, side
from es2_lightning.reports.pictures.style import ABSENT, HARMFUL

# From dark to light, so that the order also shows in grey, and hatched, so that it shows in any
# colours.
OUTCOMES = {
    "recovered": (HARMFUL, ""),
    "refused": ("#56B4E9", ""),
    "incoherent": ("#CC79A7", "...."),
    "unrelated": ("#F0E442", "xx"),
    "undecided": ("white", "////"),
}
LONGEST_NAME = 30
FADED = 0.35
HEIGHT = 0.68


def draw(comparison: Comparison, only: int | None = None, *, name: str | None = None) -> Figure:
    """Stacked bars of the headline judge's outcomes, a panel for each model.

    An attack that does not work on the base has no bar for the tuned model.

    Args:
        comparison: Whose outcomes they are.
        only: Draw one panel: 0, the base's, or 1, the tuned model's.
        name: What the model of that one panel is called.
    """
    attacks = shown_attacks(comparison)
    drawn_columns = range(len(comparison.measurements)) if only is None else (only,)
    columns = len(drawn_columns)
    height = 1.5 + 0.34 * len(attacks)
    figure = Figure(figsize=(1.9 + 3.5 * columns, max(height, 2.6)), layout="constrained")
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    n = len(comparison.base.direct["harmful"].prompts)
    drawn = set()
    for column, axes in zip(drawn_columns, panels, strict=True):
        measured = comparison.measurements[column]
        for place, shown in enumerate(attacks):
            drawn |= _bar(axes, place, comparison, shown, column)
        axes.set_title(name or shortened(measured.model, LONGEST_NAME))
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"% of {n} harmful prompts")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(
        range(len(attacks)), [shortened(shown.name, LONGEST_NAME) for shown in attacks]
    )
    panels[0].set_ylim(len(attacks) - 0.5, -0.5)
    for shown, tick in zip(attacks, panels[0].get_yticklabels(), strict=True):
        if not comparison.effective.get(shown.name, True):
            tick.set_color("#7f7f7f")
    note = f"(judge: {comparison.headline}; whiskers: 95 % interval of recovered)"
    figure.suptitle(f"Outcome by attack{' ' if columns > 1 else chr(10)}{note}", fontsize=11)
    figure.legend(
        handles=[
            Patch(facecolor=colour, hatch=hatch, edgecolor="#555555", linewidth=0.5, label=metric)
            for metric, (colour, hatch) in OUTCOMES.items()
            if metric in drawn
        ],
        loc="outside lower center",
        ncols=len(OUTCOMES) if columns > 1 else 3,
    )
    return figure


def _bar(axes: Axes, place: int, comparison: Comparison, shown: Shown, column: int) -> set[str]:
    """One attack on one model; which outcomes occurred."""
    effective = comparison.effective.get(shown.name, True)
    measured = comparison.measurements[column]
    made = measured.attacks.get(shown.attack)
    shares = {metric: _share(comparison, shown, metric, column) for metric in OUTCOMES}
    recovered = shares["recovered"]
    if made is None or made.not_possible or recovered is None or recovered.n == 0:
        reason = "not possible" if made and made.not_possible else "not measured"
        _words(axes, place, reason)
        return set()
    if column == 1 and not effective:
        base = _share(comparison, shown, "recovered", 0)
        worse = base is not None and recovered.value > base.value
        # A model that got worse must not hide behind these words.
        more = f", yet recovers {figure_of(recovered.value)} %" if worse else ""
        _words(axes, place, NOT_EFFECTIVE + more)
        return set()
    left = 0.0
    drawn = set()
    for metric, (colour, hatch) in OUTCOMES.items():
        share = shares[metric]
        if share is None or share.value == 0:
            continue
        width = 100 * share.value
        axes.barh(
            place,
            width,
            left=left,
            height=HEIGHT,
            facecolor=colour,
            hatch=hatch,
            edgecolor="#555555",
            linewidth=0.5,
            alpha=1 if effective else FADED,
        )
        drawn.add(metric)
        left += width
    if not effective:
        _words(axes, place, NOT_EFFECTIVE, bar=False)
        return drawn
    value, low, high = (100 * x for x in (recovered.value, recovered.low, recovered.high))
    axes.errorbar(
        value,
        place,
        xerr=[[value - low], [high - value]],
        color="black",
        linewidth=1,
        capsize=2,
        clip_on=False,
    )
    return drawn


def _words(axes: Axes, place: int, words: str, *, bar: bool = True) -> None:
    if bar:
        axes.barh(place, 100, height=HEIGHT, facecolor=ABSENT)
    behind = {"facecolor": "white" if not bar else ABSENT, "edgecolor": "none", "pad": 1.5}
    axes.text(50, place, words, ha="center", va="center", fontsize=8, color="#444444", bbox=behind)


def _share(comparison: Comparison, shown: Shown, metric: str, column: int) -> Estimate | None:
    return side(comparison.row(shown.name, metric), column)
