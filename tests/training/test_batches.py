"""Which prompts meet in which batch, how they become tokens, and what becomes of odd data."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from es2_lightning.errors import UserError
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits
from es2_lightning.training.batches import PairedBatches
from es2_lightning.training.datamodule import PromptDataModule

from ..tiny_models import tiny_chat_model, tiny_splits


def batches(**values: Any) -> PairedBatches:
    sizes = {"num_harmless": 13, "num_harmful": 6, "harmless_per_batch": 5, "harmful_per_batch": 2}
    return PairedBatches(lambda *numbers: numbers, **(sizes | values))  # type: ignore[arg-type,return-value]


def test_an_epoch_is_one_pass_over_the_harmful_prompts() -> None:
    plan = batches()
    for _ in range(3):
        epoch = list(plan)
        assert len(epoch) == len(plan) == 3
        assert sorted(i for _, harmful in epoch for i in harmful) == list(range(6))  # type: ignore[misc]


def test_each_class_is_passed_completely_before_it_is_shuffled_again() -> None:
    plan = batches()
    harmless = [i for n in range(26) for i in plan.indices(n)[0]]
    passes = [harmless[k * 13 : (k + 1) * 13] for k in range(10)]
    assert all(sorted(one) == list(range(13)) for one in passes)
    assert len({tuple(one) for one in passes}) == 10, "each pass has an order of its own"


def test_a_batch_at_the_end_of_a_pass_is_filled_from_the_next() -> None:
    plan = batches(num_harmful=5)
    assert len(plan) == 3
    sizes = {(len(a), len(b)) for a, b in (plan.indices(n) for n in range(9))}
    assert sizes == {(5, 2)}


def test_the_plan_depends_on_the_seed_alone() -> None:
    plan = batches(seed=3)
    wanted = [plan.indices(n) for n in range(5)]
    assert [batches(seed=3).indices(n) for n in (4, 0)] == [wanted[4], wanted[0]]
    assert batches(seed=4).indices(0) != wanted[0]
    code = (
        "from es2_lightning.training.batches import PairedBatches as P;"
        "p = P(lambda *n: n, num_harmless=13, num_harmful=6, harmless_per_batch=5,"
        "harmful_per_batch=2, seed=3); print([p.indices(n) for n in range(5)])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(wanted), "another process, another hash seed"


def test_a_saved_position_goes_on_mid_epoch() -> None:
    plan = batches()
    walk = iter(plan)
    next(walk)
    resumed = batches()
    resumed.load_state_dict(plan.state_dict())
    assert list(resumed) == list(walk) == [plan.indices(1), plan.indices(2)]
    assert next(iter(resumed)) == plan.indices(3)


def test_validation_is_the_same_each_time() -> None:
    plan = batches(shuffle=False)
    assert list(plan) == list(plan)
    assert plan.indices(0) == ([0, 1, 2, 3, 4], [0, 1])


def data(splits: PromptSplits, **values: Any) -> PromptDataModule:
    settings = {"harmless_per_batch": 5, "harmful_per_batch": 4, "use_responses": True, "seed": 0}
    return PromptDataModule(splits, **(settings | values))


def test_harmless_rows_come_first_and_each_class_has_its_kl() -> None:
    renderer, splits = tiny_chat_model().renderer, tiny_splits()
    module = data(splits)
    module.connect(renderer, kl_positions="all")
    module.use_refusals({splits.train.harmful[0]: "w1 w2"})
    batch = module.collate(splits.train.harmless[:3], splits.train.harmful[:2])
    assert batch.harmful == (False,) * 3 + (True,) * 2
    for row in batch.rows[:3]:
        length = len(row.token_ids)
        assert row.output_positions == tuple(range(length))
        assert row.last_prompt_index == length - 3, "the answer and its end come behind the prompt"
    refused, unrefused = batch.rows[3:]
    # w1, w2 and the end are predicted from the prompt's last token, from w1 and from w2.
    last = refused.last_prompt_index
    assert refused.output_positions == (last, last + 1, last + 2)
    assert unrefused.output_positions == (), "no refusal, no KL"
    assert len(unrefused.token_ids) == unrefused.last_prompt_index + 1, "nor its own response"


def test_responses_may_be_left_out() -> None:
    module = data(tiny_splits(), use_responses=False)
    module.connect(tiny_chat_model().renderer, kl_positions="all")
    batch = next(iter(module.train_dataloader()))
    assert all(len(row.token_ids) == row.last_prompt_index + 1 for row in batch.rows)


def test_fewer_prompts_than_a_batch_holds(caplog: pytest.LogCaptureFixture) -> None:
    module = data(tiny_splits(2), harmless_per_batch=50, harmful_per_batch=10)
    with caplog.at_level(logging.WARNING):
        module.connect(tiny_chat_model().renderer, kl_positions="all")
    assert "train has 2 harmful prompts" in caplog.text and "per_batch=10" in caplog.text
    loader = module.train_dataloader()
    batch = next(iter(loader))
    assert len(loader) == 1
    assert Counter(batch.harmful) == {False: 6, True: 2}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_class_is_named(split: str) -> None:
    splits = tiny_splits()
    harmless = PromptSet(splits.train.harmless)
    broken = PromptSplits(
        **{**{n: getattr(splits, n) for n in ("train", "validation", "test")}, split: harmless}
    )
    with pytest.raises(UserError, match=f"the {split} split has no harmful prompts"):
        data(broken)


def test_prompts_and_refusals_that_are_too_long_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renderer, splits = tiny_chat_model().renderer, tiny_splits()
    long = Prompt(" ".join(["w1"] * 200), "harmful")
    splits = PromptSplits(PromptSet((*splits.train.prompts, long)), splits.validation, splits.test)
    module = data(splits)
    with caplog.at_level(logging.WARNING):
        module.connect(renderer, kl_positions="all")
        one, other = module.splits.train.harmful[:2]
        module.use_refusals({})
        module.use_refusals({one: "w1", other: " ".join(["w1"] * 150)})
    assert "1 of 49 prompts have more than model.max_length=128 tokens" in caplog.text
    assert long not in module.splits.train.prompts
    assert "1 of 2 refusals" in caplog.text and module.refusals == {one: "w1"}
    renderer.max_length = 4
    with pytest.raises(UserError, match=r"model\.max_length=4"):
        data(tiny_splits()).connect(renderer, kl_positions="all")


def test_the_kl_on_responses_needs_some_and_takes_those_that_there_are() -> None:
    renderer, splits = tiny_chat_model().renderer, tiny_splits()
    some, none = (
        PromptSplits(
            **{
                name: PromptSet(
                    tuple(
                        replace(p, response=p.response if i % keep else None)
                        for i, p in enumerate(getattr(splits, name).prompts)
                    )
                )
                for name in ("train", "validation", "test")
            }
        )
        for keep in (2, 1)
    )
    module = data(some)
    module.connect(renderer, kl_positions="response")
    harmless = module.splits.train.harmless[:6]
    batch = module.collate(harmless, module.splits.train.harmful[:2])
    # Without a response the prompt's last position stands for it; each response has two tokens.
    sizes = [1 if p.response is None else 2 for p in harmless]
    assert [len(row.output_positions) for row in batch.rows[:6]] == sizes
    assert 0 < sum(p.response is not None for p in harmless) < 6
    with pytest.raises(UserError, match=r"kl_positions=response: no harmless training prompt has"):
        data(none).connect(renderer, kl_positions="response")
    for positions in ("all", "last"):
        module = data(none)
        module.connect(renderer, kl_positions=positions)  # type: ignore[arg-type]
        assert all(row.output_positions for row in module.collate(harmless, harmless[:0]).rows)
