"""How good an order of candidates is: top-1, NDCG and MRR, with ties in any order alike.

A ranker that cannot tell candidates apart gets what a random order among them gives on average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb, log2

from es2_lightning.evaluation.intervals import Estimate, mean, rate
from es2_lightning.prompts.candidate_lists import CandidateList


@dataclass(frozen=True)
class ListFigures:
    """What one ranker makes of one list.

    Attributes:
        top1: The probability that the first candidate is safe.
        ndcg: Normalised discounted cumulative gain, safe candidates gaining 1; nan without any.
        reciprocal_rank: The expected 1 / rank of the first safe candidate; 0 without any.
        chosen: By kind, the probability that the first candidate is of it.
    """

    top1: float
    ndcg: float
    reciprocal_rank: float
    chosen: dict[str, float]


def list_figures(scores: Sequence[float], found: CandidateList) -> ListFigures:
    """Figures of one list.

    Args:
        scores: Of each candidate, higher is better.
        found: The list, with at least one candidate.
    """
    groups = list(_tied(scores))
    gain = ideal = reciprocal = 0.0
    rank, missed = 1, True
    for group in groups:
        safe = sum(found.safe[i] for i in group)
        gain += safe / len(group) * sum(_discount(rank + i) for i in range(len(group)))
        if safe and missed:
            missed = False
            reciprocal = _first_safe(rank, len(group), safe)
        rank += len(group)
    ideal = sum(_discount(i + 1) for i in range(sum(found.safe)))
    first = groups[0]
    chosen: dict[str, float] = defaultdict(float)
    for i in first if found.kinds else ():
        chosen[found.kinds[i]] += 1 / len(first)
    return ListFigures(
        top1=sum(found.safe[i] for i in first) / len(first),
        ndcg=gain / ideal if ideal else float("nan"),
        reciprocal_rank=reciprocal,
        chosen=dict(chosen),
    )


def over_prompts(
    values: Sequence[float], lists: Sequence[CandidateList], *, shares: bool = True
) -> Estimate:
    """The mean over prompts: a prompt's lists are not independent of each other, so that each
    counts with the mean of its own.

    Args:
        values: Of each list; nan: not counted.
        lists: The lists.
        shares: Whether 0 and 1 mean no and yes: then the interval is Wilson's if there is nothing
            else.
    """
    own = by_prompt(values, lists)
    if shares and all(value in (0.0, 1.0) for value in own):
        return rate([value == 1.0 for value in own])
    return mean(own)


def by_prompt(values: Sequence[float], lists: Sequence[CandidateList]) -> list[float]:
    """Each prompt's mean, in the order of their first lists."""
    own: dict[str, list[float]] = {}
    for value, found in zip(values, lists, strict=True):
        if value == value:  # Not nan.
            own.setdefault(found.prompt or found.instruction, []).append(value)
    return [sum(some) / len(some) for some in own.values()]


def _tied(scores: Sequence[float]) -> Iterator[list[int]]:
    """Groups of equal scores, the highest first."""
    groups: dict[float, list[int]] = {}
    for i, score in enumerate(scores):
        groups.setdefault(score, []).append(i)
    for score in sorted(groups, reverse=True):
        yield groups[score]


def _discount(rank: int) -> float:
    return 1 / log2(rank + 1)


def _first_safe(rank: int, size: int, safe: int) -> float:
    """The expected 1 / rank of the first safe one of a group whose ranks begin at `rank`."""
    return sum(
        comb(size - j - 1, safe - 1) / comb(size, safe) / (rank + j) for j in range(size - safe + 1)
    )
