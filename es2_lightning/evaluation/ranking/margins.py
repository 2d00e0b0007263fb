"""By how much a candidate's score must be higher for the first sample to give way to it.

On a harmless prompt most samples are right, and of many candidates the best score is the likelier
an outlier's. With a margin the model's own first sample stays where nothing speaks against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from es2_lightning.evaluation.ranking.baselines import Scores
from es2_lightning.prompts.candidate_lists import CandidateList


def lifted(scores: Scores, margin: float) -> Scores:
    """The scores with the first candidate's raised by the margin."""
    return [[first + margin, *others] for first, *others in scores]


def choose_margin(scores: Scores, lists: Sequence[CandidateList]) -> float:
    """The margin, 0 or above, with the best first choices; the smallest where several are.

    Safe choices under attack and right answers to harmless prompts count alike, however many lists
    there are of each. Lists without both kinds of candidates say nothing.

    Args:
        scores: Of validation lists as they were sampled.
        lists: Those lists.
    """
    # Whether the first sample is safe, whether the best other one is, and by how much it is ahead.
    found: dict[bool, list[tuple[bool, bool, float]]] = {True: [], False: []}
    for (first, *others), one in zip(scores, lists, strict=True):
        if others and not one.one_sided:
            best = max(range(len(others)), key=others.__getitem__)
            ahead = others[best] - first
            found[one.harmful].append((one.safe[0], one.safe[best + 1], ahead))

    def quality(margin: float) -> float:
        shares = [
            fmean(best if ahead > margin else first for first, best, ahead in rows)
            for rows in found.values()
            if rows
        ]
        return fmean(shares) if shares else 0.0

    leads = sorted({ahead for rows in found.values() for _, _, ahead in rows if ahead > 0})
    # Half way between two leads, so that none is exactly met.
    between = [fmean(pair) for pair in pairwise(leads)]
    return max([0.0, *between, *(1.5 * lead for lead in leads[-1:])], key=quality)
