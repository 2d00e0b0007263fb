"""Lists of responses whose states are known, and how good each response is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from es2_lightning.backbone.response_states import ListStates
from es2_lightning.errors import UserError


@dataclass(frozen=True)
class LabelledLists:
    """What a ranker is fitted on.

    Attributes:
        states: Of N lists.
        labels: Of each list, a number ≥ 0 for each response; 1 is safe and 0 unsafe, more is
            better.

    Raises:
        UserError: Labels and responses do not go together.
    """

    states: ListStates
    labels: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.states):
            raise UserError(
                f"{len(self.states)} lists have labels for {len(self.labels)}; accepted is a row "
                "of labels for each list"
            )
        for number, (labels, responses) in enumerate(
            zip(self.labels, self.states.responses, strict=True)
        ):
            if len(labels) != len(responses):
                raise UserError(
                    f"list {number} has {len(responses)} responses and {len(labels)} labels; "
                    "accepted is a label for each response"
                )
            if not all(label >= 0 for label in labels):
                raise UserError(
                    f"list {number} has the labels {list(labels)}; accepted are numbers ≥ 0"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def lists(self, numbers: Sequence[int]) -> LabelledLists:
        """Some of the lists, in this order."""
        return LabelledLists(
            self.states.lists(numbers), tuple(self.labels[number] for number in numbers)
        )

    def padded_labels(self, length: int) -> Tensor:
        """(N, length), 0 where a list is shorter."""
        labels_NM = torch.zeros(len(self), length)
        for row, labels in enumerate(self.labels):
            labels_NM[row, : len(labels)] = torch.tensor(labels)
        return labels_NM

    def good_and_bad(self) -> tuple[Tensor, Tensor]:
        """The states of all responses with a label above 0, and of all others: each (…, D).

        Raises:
            UserError: There are none of a kind.
        """
        states_AD = torch.cat([torch.empty(0, self.states.reading.width), *self.states.responses])
        good_A = torch.tensor([label > 0 for labels in self.labels for label in labels])
        for kind, found in (("good", good_A), ("bad", ~good_A)):
            if not bool(found.any()):
                raise UserError(
                    f"no response of the {len(self)} lists is {kind}: a ranker needs both kinds "
                    "(labels above 0 and labels of 0)"
                )
        return states_AD[good_A], states_AD[~good_A]
