"""Rankers that read responses along one direction: what the ranker of SRR is compared with.

A direction cannot weigh a response against its instruction: what the instruction adds to the
scores of a list is the same for all its responses, so it is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from es2_lightning.backbone.labelled_lists import LabelledLists
from es2_lightning.backbone.probes import fit_probe
from es2_lightning.backbone.ranker import require_reading
from es2_lightning.backbone.response_states import ListStates, StateReading

DirectionKind = Literal["linear_probe", "mean_difference"]


@dataclass(frozen=True)
class DirectionRanker:
    """score = direction · state + bias.

    Attributes:
        kind: How the direction was found.
        reading: Where its states are read.
        direction_D: (D,) float64.
        bias: Added to every score.
    """

    kind: DirectionKind
    reading: StateReading
    direction_D: Tensor
    bias: float

    def scores(self, states: ListStates) -> Tensor:
        """See `Ranker`."""
        require_reading(states, self.reading)
        responses_NMD, present_NM = states.padded()
        scores_NM = responses_NMD.double() @ self.direction_D + self.bias
        return scores_NM.float().masked_fill(~present_NM, -math.inf)


def fit_linear_probe(lists: LabelledLists, *, scale_free: bool = True) -> DirectionRanker:
    """Logistic regression of good against bad responses; the score is the logit of good.

    Args:
        lists: Labels above 0 are good.
        scale_free: Divide the states by their root mean square first.

    Raises:
        UserError: There are no good or no bad responses.
    """
    good, bad = lists.good_and_bad()
    probe = fit_probe(good, bad, scale_free=scale_free)
    return DirectionRanker("linear_probe", lists.states.reading, probe.weight, probe.bias)


def fit_mean_difference(lists: LabelledLists) -> DirectionRanker:
    """The mean state of good responses minus that of bad ones; 0 is half way between them.

    Raises:
        UserError: There are no good or no bad responses.
    """
    good, bad = (states.double().mean(0) for states in lists.good_and_bad())
    direction = (good - bad) / torch.linalg.vector_norm(good - bad)
    middle = float(direction @ (good + bad)) / 2
    return DirectionRanker("mean_difference", lists.states.reading, direction, -middle)
