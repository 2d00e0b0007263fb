"""What a ranking study finds, as rows of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any

from es2_lightning.evaluation.intervals import Estimate, paired_sign_flip
from es2_lightning.evaluation.ranking.baselines import Scores
from es2_lightning.evaluation.ranking.metrics import (
    ListFigures,
    by_prompt,
    list_figures,
    over_prompts,
)
from es2_lightning.prompts.candidate_lists import CandidateList

FIRST, RANDOM, PERPLEXITY, KEYWORD = "first sample", "random", "perplexity", "keyword"
MEAN_DIFFERENCE, PROBE, RANKER, ORACLE = "mean difference", "linear probe", "SRR", "oracle"
UNSEEN = ", attack unseen"
"""Behind a ranker's name: each attack's lists are ranked by one that was fitted without them."""
FIRST_KEPT = ", first kept"
"""Behind it: the first sample stays unless another's score is higher by more than a margin."""
RANKERS = (
    *(FIRST, RANDOM, PERPLEXITY, KEYWORD, MEAN_DIFFERENCE, PROBE, PROBE + UNSEEN),
    *(RANKER, RANKER + FIRST_KEPT, RANKER + UNSEEN, ORACLE),
)
COMPOSED, AS_SAMPLED = "composed", "as sampled"
HARMFUL, ALL = "harmful", "all"
TOP1, NDCG, MRR = "top1_safe", "ndcg", "mrr"
CHOSEN = "chosen_"
"""Before a kind: how often the first candidate is of it."""


@dataclass(frozen=True)
class RankRow:
    """One figure.

    Attributes:
        model: `base` or `tuned`.
        lists: `composed`, or `as sampled`.
        group: An attack, `harmful` (all of them), `harmless`, `all` …, or of the cross-set table
            `<trained on> → <tested on>`.
        num_candidates: m; None: lists of several lengths.
        ranker: Who ranks.
        metric: What the figure is.
        estimate: Over prompts.
    """

    model: str
    lists: str
    group: str
    num_candidates: int | None
    ranker: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True)
class RankComparison:
    """One ranker against another on the same lists.

    Attributes:
        model: As in `RankRow`, as are `lists`, `group` and `num_candidates`.
        ranker: The one.
        other: The other.
        difference: In top-1 safe rate, over prompts.
        p_value: Of a paired sign-flip test.
    """

    model: str
    lists: str
    group: str
    num_candidates: int | None
    ranker: str
    other: str
    difference: float
    p_value: float


@dataclass(frozen=True)
class RankCost:
    """What ranking costs for one prompt, in FLOPs.

    Attributes:
        num_candidates: m.
        sampling: The candidates themselves.
        states: The ranker's pass over the model's lower blocks.
        ranker: The ranker.
    """

    num_candidates: int
    sampling: int
    states: int
    ranker: int

    @property
    def extra(self) -> float:
        """Of ranking, over sampling."""
        return (self.states + self.ranker) / self.sampling


@dataclass(frozen=True)
class RankResults:
    """All that was found.

    Attributes:
        rows: Figures.
        comparisons: Of rankers.
        costs: By m.
        notes: What else a reader needs, as plain JSON: layer, numbers of lists and what was left
            out, the ranker's size.
    """

    rows: tuple[RankRow, ...]
    comparisons: tuple[RankComparison, ...] = ()
    costs: tuple[RankCost, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def joined(self, other: RankResults) -> RankResults:
        """The findings of both."""
        return RankResults(
            (*self.rows, *other.rows),
            (*self.comparisons, *other.comparisons),
            (*self.costs, *other.costs),
            {**self.notes, **other.notes},
        )

    def find(self, **wanted: Any) -> Estimate | None:
        """The figure whose row has these values; None where it was not measured."""
        for row in self.rows:
            if all(getattr(row, name) == value for name, value in wanted.items()):
                return row.estimate
        return None

    def values(self, name: str, **wanted: Any) -> list[Any]:
        """The different values of a column, in the rows' order."""
        rows = (r for r in self.rows if all(getattr(r, n) == v for n, v in wanted.items()))
        return list(dict.fromkeys(getattr(row, name) for row in rows))


Groups = Mapping[str, Callable[[CandidateList], bool]]
"""By name, which lists belong to it; a list may belong to several."""


def measure(
    lists: Sequence[CandidateList],
    scores: Mapping[str, Scores],
    groups: Groups,
    *,
    model: str,
    name: str,
    num_candidates: int | None = None,
) -> list[RankRow]:
    """Every ranker's figures on every group.

    Args:
        lists: What was ranked.
        scores: By ranker.
        groups: Groups without lists are left out.
        model: Whose candidates they are.
        name: `composed` or `as sampled`.
        num_candidates: m, where all lists have as many.
    """
    rows = []
    for ranker, scored in scores.items():
        figures = [list_figures(own, found) for own, found in zip(scored, lists, strict=True)]
        for group, belongs in groups.items():
            inside = [(f, found) for f, found in zip(figures, lists, strict=True) if belongs(found)]
            for metric, values in _metrics([f for f, _ in inside]).items():
                shares = metric not in (NDCG, MRR)
                own = [found for _, found in inside]
                estimate = over_prompts(values, own, shares=shares)
                if not isnan(estimate.value):
                    rows.append(
                        RankRow(model, name, group, num_candidates, ranker, metric, estimate)
                    )
    return rows


def compare(
    lists: Sequence[CandidateList],
    scores: Mapping[str, Scores],
    pairs: Sequence[tuple[str, str]],
    groups: Groups,
    *,
    model: str,
    name: str,
    num_candidates: int | None = None,
) -> list[RankComparison]:
    """Pairs of rankers on the same prompts, by top-1 safe rate; pairs of which one is missing are
    left out. The other arguments are those of `measure`."""
    pairs = [pair for pair in pairs if set(pair) <= scores.keys()]
    found = []
    for group, belongs in groups.items():
        inside = [i for i, one in enumerate(lists) if belongs(one)]
        own_lists = [lists[i] for i in inside]
        if not inside:
            continue
        for one, other in pairs:
            first, second = (
                by_prompt([list_figures(scores[r][i], lists[i]).top1 for i in inside], own_lists)
                for r in (one, other)
            )
            difference = sum(first) / len(first) - sum(second) / len(second)
            p_value = paired_sign_flip(second, first)
            found.append(
                RankComparison(model, name, group, num_candidates, one, other, difference, p_value)
            )
    return found


def _metrics(figures: Sequence[ListFigures]) -> dict[str, list[float]]:
    kinds = sorted({kind for f in figures for kind in f.chosen})
    return {
        TOP1: [f.top1 for f in figures],
        NDCG: [f.ndcg for f in figures],
        MRR: [f.reciprocal_rank for f in figures],
        # Nothing is known of a list whose candidates' kinds are not.
        **{
            CHOSEN + kind: [f.chosen.get(kind, 0.0) if f.chosen else nan for f in figures]
            for kind in kinds
        },
    }
