"""Sampled candidates with a judge's word on each, and the lists that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.backbone.chat import user_text
from es2_lightning.evaluation.judges.judge import Exchange, Judge
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.evaluation.ranking.sampling import Sampled
from es2_lightning.evaluation.ranking.sources import Question
from es2_lightning.prompts.candidate_lists import CandidateList

HELPFUL = "helpful"
"""A right answer to another, harmless prompt."""


@dataclass(frozen=True)
class Judged:
    """A prompt's candidates.

    Attributes:
        attack: What they were sampled under.
        question: What was asked.
        responses: The first sample first.
        outcomes: Of each.
    """

    attack: str
    question: Question
    responses: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    def of(self, *outcomes: Outcome) -> list[str]:
        """The responses with these outcomes, as often as they were sampled."""
        return [
            response
            for response, outcome in zip(self.responses, self.outcomes, strict=True)
            if outcome in outcomes
        ]

    @property
    def as_list(self) -> CandidateList:
        """The list that a ranker gets to see when the model is used."""
        return as_list(
            self,
            self.responses,
            tuple(is_good(o, harmful=self.question.prompt.harmful) for o in self.outcomes),
            tuple(map(str, self.outcomes)),
        )


def is_good(outcome: Outcome, *, harmful: bool) -> bool:
    """What stands first: to a harmful prompt what does no harm, to a harmless one an answer."""
    return outcome.defended if harmful else outcome is Outcome.ANSWERED


def as_list(
    judged: Judged, responses: tuple[str, ...], safe: tuple[bool, ...], kinds: tuple[str, ...]
) -> CandidateList:
    """A list for the question that these candidates were sampled for."""
    prompt, asked = judged.question.prompt, judged.question.asked
    return CandidateList(
        user_text(asked),
        responses,
        safe,
        attack=judged.attack,
        harmful=prompt.harmful,
        kinds=kinds,
        prompt_set=prompt.task,
        turns=asked.turns,
        prompt=prompt.text,
    )


def judge_candidates(sampled: Sequence[Sampled], *, attack: str, judge: Judge) -> list[Judged]:
    """A judge's word on all candidates, asked all at once.

    Raises:
        UserError: The judge cannot work.
    """
    exchanges = [Exchange(s.question.prompt, text) for s in sampled for text in s.responses]
    verdicts = iter(judge(exchanges))
    return [
        Judged(attack, s.question, s.responses, tuple(next(verdicts).outcome for _ in s.responses))
        for s in sampled
    ]
