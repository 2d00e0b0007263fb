"""Lists in which only instruction and response together tell what is good, and a ranker's fit.

torchrun --nproc-per-node=2 -m tests.training.ranking_run <folder>
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from es2_lightning.backbone.labelled_lists import LabelledLists
from es2_lightning.backbone.ranker import ResponseRanker
from es2_lightning.backbone.ranker_folder import save_ranker
from es2_lightning.backbone.response_states import ListStates, StateReading
from es2_lightning.training.ranking.methods import TransformerRanking

READING = StateReading(layer=1, response_token="last", depth=4, width=6)
METHOD = TransformerRanking(
    hidden_size=16,
    feedforward_size=32,
    lr=3e-3,
    max_epochs=12,
    lists_per_batch=10,
    foreign_instructions=0.2,
)


def interacting_lists(number: int, seed: int) -> LabelledLists:
    """A response is good if its first value has the sign of its instruction's: no direction of the
    responses alone tells. Lists of 2 to 6, a good and a bad one first."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    instructions, responses, labels = draw(number, 6), [], []
    for instruction in instructions:
        size = int(torch.randint(2, 7, (1,), generator=generator))
        some = draw(size, 6)
        some[:2, 0] = some[:2, 0].abs() * torch.tensor([1.0, -1.0]) * instruction[0].sign()
        responses.append(some)
        labels.append(tuple((some[:, 0] * instruction[0] > 0).float().tolist()))
    return LabelledLists(ListStates(instructions, tuple(responses), READING), tuple(labels))


def fitted(method: TransformerRanking = METHOD, **run: Any) -> ResponseRanker:
    # 43 lists: the last batch of an epoch holds 3, of which one process has one.
    ranker = method.fit(interacting_lists(43, 0), interacting_lists(21, 1), seed=7, **run)
    assert isinstance(ranker, ResponseRanker)
    return ranker


if __name__ == "__main__":
    ranker = fitted(trainer={"accelerator": "cpu", "devices": 2, "strategy": "ddp"})
    rank = torch.distributed.get_rank()
    save_ranker(ranker, Path(sys.argv[1]) / str(rank))
