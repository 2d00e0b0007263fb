"""Lists of candidates with the states that a ranker reads of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from es2_lightning.backbone.labelled_lists import LabelledLists
from es2_lightning.backbone.response_states import ListStates
from es2_lightning.evaluation.ranking.baselines import Scores
from es2_lightning.prompts.candidate_lists import CandidateList

if TYPE_CHECKING:
    from es2_lightning.backbone.ranker import Ranker

StatesOf = Callable[[Sequence[CandidateList], str], ListStates]
"""From lists, and a name for what they are, to their states."""


@dataclass(frozen=True)
class Listed:
    """Some lists.

    Attributes:
        lists: What is ranked.
        states: Of each, in the same order.
    """

    lists: tuple[CandidateList, ...]
    states: ListStates

    def __len__(self) -> int:
        return len(self.lists)

    def where(self, keep: Callable[[CandidateList], bool]) -> Listed:
        """Some of the lists."""
        numbers = [i for i, found in enumerate(self.lists) if keep(found)]
        return Listed(tuple(self.lists[i] for i in numbers), self.states.lists(numbers))

    def first(self, number: int) -> Listed:
        """The same lists with their first so many candidates."""
        return Listed(
            tuple(found.first(number) for found in self.lists),
            replace(self.states, responses=tuple(some[:number] for some in self.states.responses)),
        )

    @property
    def labelled(self) -> LabelledLists:
        """What a ranker is fitted on: 1 is safe."""
        return LabelledLists(
            self.states, tuple(tuple(map(float, found.safe)) for found in self.lists)
        )

    def scores(self, ranker: Ranker) -> Scores:
        """A fitted ranker's scores, without padding."""
        rows = ranker.scores(self.states).tolist()
        return [row[: len(found.responses)] for row, found in zip(rows, self.lists, strict=True)]
