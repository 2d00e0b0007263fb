"""The figures of arXiv 2603.20206's tables, and where ours stand that belong beside them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from es2_lightning.evaluation.intervals import Estimate

if TYPE_CHECKING:
    from es2_lightning.evaluation.comparison import Comparison
    from es2_lightning.reports.page.run_files import RunFiles

FILE = Path(__file__).with_name("paper_tables.csv")
MODELS = ("llama2", "llama3", "mistral", "qwen2_5")
STANDS_IN = "llama2"
"""Beside whose figures those of a model stand that is not in the paper."""
METHODS = ("base", "stl", "dpl", "circuit_breakers", "es2")
EMERGENCE = 10
"""The paper's emergence layer."""
TITLES = {
    "1": "Table 1: defended under attacks on embeddings",
    "2": "Table 2: capability",
    "3": "Table 3: incoherent and gibberish outputs under attack",
    "6": "Table 6: one layer, under SCAV",
    "7": "Table 7: two layers, under SCAV",
    "8": "Table 8: norm of the shift that SCAV needs",
    "9": "Table 9: defended under attacks by prompts",
}


class Key(NamedTuple):
    """What a figure is of."""

    table: str
    model: str
    method: str
    attack: str
    metric: str


class Ours(NamedTuple):
    """Where a figure of ours stands in an evaluation.

    Attributes:
        metric: Its row's.
        judges: Whose verdict counts, the first of those that there are; none: nobody's.
        attack: Its row's, where that is not the paper's.
        unit: What it is multiplied with, to be as the paper's is.
    """

    metric: str
    judges: tuple[str, ...] = ("",)
    attack: str | None = None
    unit: float = 100.0


METRICS: dict[str, Ours] = {
    "keyword": Ours("defended", ("keyword_paper",)),
    # Whether the organism's answer is right is known, so that nobody need be asked.
    "answer": Ours("defended", ("answer", "exact")),
    "useful": Ours("defended", ("useful",)),
    "incoherent": Ours("incoherent", ("answer", "exact")),
    "gibberish": Ours("unrelated", ("answer", "exact")),
    "perturbation_distance": Ours("shift", unit=1.0),
    "ifeval": Ours("leaderboard_ifeval/prompt_level_strict_acc", attack="none", unit=1.0),
    "bbh": Ours("leaderboard_bbh/acc_norm", attack="none", unit=1.0),
    "gpqa": Ours("leaderboard_gpqa/acc_norm", attack="none", unit=1.0),
    "math": Ours("leaderboard_math_hard/exact_match", attack="none", unit=1.0),
    "musr": Ours("leaderboard_musr/acc_norm", attack="none", unit=1.0),
    "mmlu_pro": Ours("leaderboard_mmlu_pro/acc", attack="none", unit=1.0),
    # The organism's own: no figure of the paper stands beside it.
    "exact answers": Ours("all/answered", attack="none"),
}
"""By the paper's metric."""


@dataclass(frozen=True)
class BesidePaper:
    """A figure of the paper, and ours.

    Attributes:
        key: What it is of.
        paper: The paper's; None where it has none.
        ours: In the same unit; None where it was not measured, or means nothing.
        means_nothing: Whether the attack does not work on the base, so that there is no defence.
    """

    key: Key
    paper: float | None
    ours: Estimate | None
    means_nothing: bool = False

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        if self.paper is None or self.ours is None or math.isnan(self.ours.value):
            return None
        return self.ours.value - self.paper


@cache
def paper_figures() -> dict[Key, float]:
    """Every number of Tables 1 to 3 and 6 to 9; percent, but for table 2 and distances."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {Key(*(row[f] for f in Key._fields)): float(row["value"]) for row in rows}


def paper_rows(runs: Sequence[RunFiles], *, model: str, table: str) -> list[BesidePaper]:
    """A table's figures beside those of some runs: the base first, then method by method.

    What none of the runs measured is left out; nothing where none is of a method that the table is
    about. Of several runs of a method the first counts.

    Args:
        runs: Of one model.
        model: The one in the paper beside which it stands.
        table: A key of `TITLES`.
    """
    printed = [key for key in paper_figures() if (key.table, key.model) == (table, model)]
    asked = list(dict.fromkeys((key.attack, key.metric) for key in printed))
    if table == "2":
        asked.append(("none", "exact answers"))
    measured: dict[str, dict[tuple[str, str], BesidePaper]] = {}
    for method, comparison in _measured(runs, table):
        for attack, metric in asked:
            key = Key(table, model, method, attack, metric)
            found = _beside(key, comparison)
            if found is not None:
                measured.setdefault(method, {}).setdefault((attack, metric), found)
    if not any(_is_about(table, method) for method in measured):
        return []
    order = {method: place for place, method in enumerate(METHODS)}
    return [
        measured[method][what]
        for method in sorted(measured, key=lambda m: order.get(m, len(order)))
        for what in asked
        if what in measured[method]
    ]


def method_of(run: RunFiles) -> str:
    """As the paper's tables name it: `es2:14+-1` is ES2 on layers 14 and L."""
    method = str(run.choices.get("method", "es2"))
    select = (run.config.get("layers") or {}).get("select")
    pair = [EMERGENCE, run.depth]
    if method != "es2" or select == "emergence_terminal" or list(run.layers) == pair:
        return method
    several = len(run.layers) > 1
    return "es2:" + "+".join(
        "-1" if several and layer == run.depth else str(layer) for layer in run.layers
    )


def _measured(runs: Sequence[RunFiles], table: str) -> Iterator[tuple[str, Comparison]]:
    """Each method of which the table may tell, and where it was measured."""
    for run in runs:
        if run.comparison is None:
            continue
        yield "base", run.comparison
        method = method_of(run)
        layers = _layers(method)
        tells = {"6": layers < 2, "7": method == "es2" or layers > 1, "8": layers != 1}
        if run.comparison.tuned is not None and tells.get(table, layers == 0):
            yield method, run.comparison


def _is_about(table: str, method: str) -> bool:
    """Whether the table is there for this method's sake."""
    layers = _layers(method)
    return {"6": layers == 1, "7": layers > 1}.get(table, method != "base")


def _layers(method: str) -> int:
    """How many layers of its own it names; 0: the paper's pair, or none."""
    return method.count("+") + 1 if ":" in method else 0


def _beside(key: Key, comparison: Comparison) -> BesidePaper | None:
    """None where it was not measured."""
    ours = METRICS.get(key.metric)
    if ours is None:
        return None
    attack = ours.attack or key.attack
    rows = (comparison.row(attack, ours.metric, judge=judge) for judge in ours.judges)
    row = next(filter(None, rows), None)
    found = None if row is None else (row.base if key.method == "base" else row.tuned)
    if found is None or math.isnan(found.value):
        return None
    value, low, high = (x * ours.unit for x in (found.value, found.low, found.high))
    nothing = (
        ours.metric == "defended"
        and attack != "direct"
        and not comparison.effective.get(attack, True)
    )
    return BesidePaper(key, paper_figures().get(key), Estimate(value, low, high, found.n), nothing)
