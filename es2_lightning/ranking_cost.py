"""What ranking costs beside sampling the candidates, counted operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from es2_lightning.backbone.response_states import ListStates, response_states
from es2_lightning.evaluation.attacks.direct import Direct
from es2_lightning.evaluation.ranking.results import RankCost
from es2_lightning.evaluation.ranking.sampling import SampledModel, sample_once
from es2_lightning.evaluation.ranking.sources import ReadySource, opened
from es2_lightning.prompts.prompt import Prompt
from es2_lightning.training.cost.flops import count_flops


def ranking_costs(
    model: SampledModel, ranker: Any, prompts: Sequence[Prompt], numbers: Sequence[int]
) -> tuple[RankCost, ...]:
    """FLOPs for one prompt, on average over a few, as the code here runs them.

    Candidates are sampled in one batch until the last of them ends, their prompt computed once.
    States are read of all of them, in the blocks up to the ranker's layer.

    Args:
        model: What is sampled from, directly.
        ranker: The fitted ranker.
        prompts: What is asked.
        numbers: Of candidates, m.
    """
    # How a model's rows can be packed is tried when they are first read, and is no cost of ranking.
    response_states(model.target.chat_model, [(prompts[0], ("?",))])
    with opened(Direct(), model.target) as ready:
        return tuple(_cost(model, ready, ranker, prompts, number) for number in numbers)


def _cost(
    model: SampledModel, ready: ReadySource, ranker: Any, prompts: Sequence[Prompt], number: int
) -> RankCost:
    reading = ranker.reading
    lists: list[tuple[Prompt, tuple[str, ...]]] = []
    states: list[ListStates] = []

    def sample() -> None:
        for prompt in prompts:
            lists.append((prompt, sample_once(model, ready, [prompt], number)[0]))

    def read() -> None:
        states.append(
            response_states(
                model.target.chat_model,
                lists,
                layer=reading.layer,
                response_token=reading.response_token,
            )
        )

    flops = [
        count_flops(part).total // len(prompts)
        for part in (sample, read, lambda: ranker.scores(states[0]))
    ]
    return RankCost(number, *flops)
