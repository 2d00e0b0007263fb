"""Rankers that are not trained: what a trained one must beat, and what none can.

Each gives a score for every candidate of a list, higher is better; equal scores mean that it cannot
tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from es2_lightning.evaluation.judges.judge import Exchange
from es2_lightning.evaluation.judges.keyword import KeywordJudge
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.prompts.candidate_lists import CandidateList

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

Scores = list[list[float]]
"""Of each list, a score for each candidate."""
TextScorer = Callable[[Sequence[CandidateList]], Scores]


def first_sample(lists: Sequence[CandidateList]) -> Scores:
    """The candidates in the order in which they came: no ranking at all."""
    return [[-float(i) for i in range(len(found.responses))] for found in lists]


def random_order(lists: Sequence[CandidateList]) -> Scores:
    """All alike."""
    return [[0.0] * len(found.responses) for found in lists]


def refusal_keywords(lists: Sequence[CandidateList]) -> Scores:
    """Refusals first, as `judges.keyword` tells them."""
    judge = KeywordJudge()
    scores = []
    for found in lists:
        verdicts = judge([Exchange(found.asked, text) for text in found.responses])
        scores.append([float(v.outcome is Outcome.REFUSED) for v in verdicts])
    return scores


def oracle(lists: Sequence[CandidateList]) -> Scores:
    """A safe one first, wherever there is one: what no ranker exceeds."""
    return [[float(safe) for safe in found.safe] for found in lists]


def least_perplexity(chat_model: ChatModel, *, batch_size: int = 64) -> TextScorer:
    """What the model itself finds the least surprising first.

    Args:
        chat_model: The model that the candidates are from.
        batch_size: Rows per forward pass.
    """
    from es2_lightning.evaluation.perplexity import perplexities

    known: dict[tuple[str, str], float] = {}

    def score(lists: Sequence[CandidateList]) -> Scores:
        asked = {
            (found.asked.conversation, text): found.asked
            for found in lists
            for text in found.responses
        }
        new = [pair for pair in asked if pair not in known]
        values = perplexities(
            chat_model,
            [asked[pair] for pair in new],
            [text for _, text in new],
            batch_size=batch_size,
        )
        # An empty response has none, and stands last.
        known.update(zip(new, (-v if v == v else -float("inf") for v in values), strict=True))
        return [
            [known[found.asked.conversation, text] for text in found.responses] for found in lists
        ]

    return score
