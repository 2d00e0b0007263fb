"""Fitting rankers: what they learn, and that neither chance nor the number of processes matters."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from es2_lightning.backbone.ranker_folder import load_ranker
from es2_lightning.backbone.response_states import ListStates, StateReading
from es2_lightning.errors import UserError
from es2_lightning.training.ranking.batches import RankingBatch, RankingBatches
from es2_lightning.training.ranking.datamodule import ListsDataModule
from es2_lightning.training.ranking.methods import (
    LinearProbeRanking,
    MeanDifferenceRanking,
    RankerMethod,
    TransformerRanking,
)

from .ranking_run import METHOD, fitted, interacting_lists

ROOT = Path(__file__).parents[2]


def top1(method: RankerMethod) -> float:
    """On lists that were not seen."""
    test = interacting_lists(200, 2)
    ranker = method.fit(interacting_lists(300, 0), interacting_lists(60, 1), seed=0)
    chosen = ranker.scores(test.states).argmax(1).tolist()
    return sum(
        labels[number] > 0 for labels, number in zip(test.labels, chosen, strict=True)
    ) / len(test)


@pytest.mark.parametrize(
    ("objective", "context"),
    [("listnet", "list"), ("pairwise", "response"), ("pointwise", "response")],
)
def test_it_learns_what_no_direction_can(objective: Any, context: Any) -> None:
    method = TransformerRanking(
        objective=objective, context=context, hidden_size=32, feedforward_size=64, lr=3e-3
    )
    assert top1(method) > 0.9


@pytest.mark.parametrize("method", [LinearProbeRanking(), MeanDifferenceRanking()])
def test_a_direction_does_not(method: RankerMethod) -> None:
    assert top1(method) < 0.75


def test_a_fit_is_repeatable_and_leaves_random_numbers_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    logger = CSVLogger(tmp_path)
    one, two = fitted(loggers=[logger]), fitted()
    assert torch.equal(before, torch.random.get_rng_state())
    states = interacting_lists(9, 3).states
    assert torch.equal(one.scores(states), two.scores(states))
    logged = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert "train/loss" in logged and "validation/top1" in logged


def test_the_best_epochs_weights_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fitted(METHOD)
    assert "The ranker's weights are those after epoch" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        METHOD.fit(interacting_lists(20, 0), interacting_lists(0, 1), seed=0)
    assert "weights are those" not in caplog.text


def test_a_batch_is_shared_out_whole() -> None:
    lists = interacting_lists(23, 0)

    def batches(**share: int) -> list[RankingBatch]:
        return list(RankingBatches(lists, per_batch=10, seed=3, foreign_instructions=0.3, **share))

    whole, shares = batches(), [batches(rank=k, ranks=2) for k in (0, 1)]
    assert [batch.total for batch in whole] == [10, 10, 3]
    for batch, *own in zip(whole, *shares, strict=True):
        for share in own:
            rows = list(share.rows)
            assert (share.number, share.total) == (batch.number, batch.total)
            assert torch.equal(share.instructions_ND, batch.instructions_ND[rows])
            assert torch.equal(share.responses_NMD, batch.responses_NMD[rows])
            assert torch.equal(share.labels_NM, batch.labels_NM[rows])
        assert sorted(row for share in own for row in share.rows) == list(batch.rows)


def test_some_lists_of_a_training_batch_get_anothers_instruction() -> None:
    lists = interacting_lists(200, 0)
    own_responses = {some[0].numpy().tobytes(): i for i, some in enumerate(lists.states.responses)}

    def own_instructions(share: float) -> list[bool]:
        batches = RankingBatches(lists, per_batch=50, seed=3, foreign_instructions=share)
        return [
            torch.equal(
                batch.instructions_ND[row],
                lists.states.instructions_ND[own_responses[some[0].numpy().tobytes()]],
            )
            for batch in batches
            for row, some in enumerate(batch.responses_NMD)
        ]

    assert all(own_instructions(0))
    assert sum(own_instructions(0.3)) == pytest.approx(0.7 * 200, abs=25)
    data = ListsDataModule(lists, lists, lists_per_batch=50, foreign_instructions=0.3, seed=0)
    (first, *_) = data.val_dataloader()
    assert torch.equal(first.instructions_ND, lists.states.instructions_ND[:50])


@pytest.mark.slow
def test_two_processes_fit_what_one_does(tmp_path: Path) -> None:
    """Dropout included; over gloo, by torch's own launcher."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", "-m", "tests.training.ranking_run", str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one = fitted(trainer={"accelerator": "cpu", "devices": 1})
    states = interacting_lists(9, 3).states
    for rank in ("0", "1"):
        other = load_ranker(tmp_path / rank)
        for name, weight in one.state_dict().items():
            found = other.state_dict()[name]  # type: ignore[union-attr]
            if name == "layer.query_key_value.bias":
                # The keys' bias shifts all of a query's logits alike: its gradient is rounding.
                weight, found = (torch.cat([w[:16], w[32:]]) for w in (weight, found))
            torch.testing.assert_close(found, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.scores(states), one.scores(states), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"objective": "lambdarank"}, "accepted are listnet, pairwise, pointwise"),
        ({"context": "all"}, "accepted are list and response"),
        ({"dropout": 1.0}, "accepted is a number from 0 to below 1"),
        ({"temperature": 0.0}, "temperature=0.0: accepted is a number > 0"),
        ({"num_heads": 3}, "num_heads=3 does not divide hidden_size=64"),
        ({"max_epochs": 0}, "max_epochs=0: accepted is a whole number ≥ 1"),
        ({"foreign_instructions": 1.0}, "accepted is a share from 0 to below 1"),
        ({"lr": -1.0}, "lr=-1.0: accepted is a number ≥ 0"),
        ({"lr": "abc"}, "lr=abc: accepted is a number ≥ 0"),
        ({"hidden_size": 3.5}, "hidden_size=3.5: accepted is a whole number ≥ 1"),
        ({"lists_per_batch": True}, "lists_per_batch=True: accepted is a whole number ≥ 1"),
        ({"dropout": "half"}, "dropout=half: accepted is a number from 0 to below 1"),
    ],
)
def test_values_that_are_not_accepted_are_told(words: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        TransformerRanking(**words)


def test_what_cannot_be_fitted_is_told() -> None:
    train = interacting_lists(4, 0)
    elsewhere = ListStates(
        train.states.instructions_ND,
        train.states.responses,
        StateReading(2, "last", depth=4, width=6),
    )
    with pytest.raises(UserError, match="accepted are states of one reading"):
        TransformerRanking().fit(train, type(train)(elsewhere, train.labels))
    with pytest.raises(UserError, match="accepted are auto and ddp"):
        TransformerRanking().fit(train, train, trainer={"strategy": "fsdp"})
    states = replace(train.states, instructions_ND=train.states.instructions_ND * math.inf)
    with pytest.raises(UserError, match=r"no finite number .* smaller ranker\.lr"):
        TransformerRanking(max_epochs=1).fit(train, replace(train, states=states))
