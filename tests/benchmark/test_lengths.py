"""The lengths of a measured batch, and the batch of random tokens that has them."""

from __future__ import annotations

import pytest

from es2_lightning.errors import UserError
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits
from es2_lightning.training.step_benchmark.lengths import (
    built_in_lengths,
    lengths_of_prompts,
    random_batch,
)

from ..tiny_models import tiny_chat_model


def splits(**words: list[int]) -> PromptSplits:
    """Training prompts of so many words, by kind."""
    prompts = [
        Prompt(" ".join(f"w{i}" for i in range(n)), kind)  # type: ignore[arg-type]
        for kind, sizes in words.items()
        for n in sizes
    ]
    empty = PromptSet(())
    return PromptSplits(train=PromptSet(tuple(prompts)), validation=empty, test=empty)


def test_built_in_lengths_are_like_those_of_instruction_sets() -> None:
    lengths = built_in_lengths(harmless=50, harmful=10)
    assert (len(lengths.harmless), len(lengths.harmful)) == (50, 10)
    assert 0.55 < lengths.fill < 0.65
    assert lengths.fill == lengths.tokens / (60 * lengths.longest)
    assert lengths.longest == max(lengths.harmless), "the longest is no instruction of AdvBench"
    longer = built_in_lengths(harmless=50, harmful=10, prefix=145)
    assert longer.tokens - lengths.tokens == 60 * 140 and longer.prefix == 145


def test_lengths_of_prompts_are_told_by_the_tokenizer_or_estimated() -> None:
    given = splits(harmful=[2, 4, 6], harmless=[10, 20, 30])
    own = lengths_of_prompts(given, tiny_chat_model().renderer, harmless=3, harmful=1)
    # <bos> and <user> before each prompt and <assistant> behind it; all begin with w0 and w1.
    assert own.harmful == (7,) and own.harmless == (16, 23, 30) and own.prefix == 4
    guessed = lengths_of_prompts(given, None, harmless=1, harmful=1)
    assert guessed.harmful == (5 + 5 + 5,) and guessed.harmless == (5 + 26 + 5,)
    assert "estimated" in guessed.source and guessed.prefix == 5
    with pytest.raises(UserError, match="no harmful training prompts"):
        lengths_of_prompts(splits(harmless=[3]), None, harmless=1, harmful=1)


@pytest.mark.parametrize("kl_positions", ["all", "last"])
def test_a_batch_has_the_lengths_and_shares_just_the_prefix(kl_positions: str) -> None:
    lengths = built_in_lengths(harmless=20, harmful=4, prefix=7)

    def batch(seed: int) -> object:
        return random_batch(lengths, vocab_size=50, kl_positions=kl_positions, seed=seed)

    found = random_batch(lengths, vocab_size=50, kl_positions=kl_positions, seed=3)
    assert found == batch(3) and found != batch(4)
    assert found.harmful == (False,) * 20 + (True,) * 4
    sizes = [len(row.token_ids) for row in found.rows]
    assert sorted(sizes[:20]) == sorted(lengths.harmless) != sizes[:20], "in another order"
    columns = list(zip(*(row.token_ids for row in found.rows), strict=False))
    assert [len(set(column)) == 1 for column in columns[:8]] == [True] * 7 + [False]
    for row, harmful in zip(found.rows, found.harmful, strict=True):
        assert row.last_prompt_index == len(row.token_ids) - 1
        outputs = {"all": len(row.token_ids), "last": 1}[kl_positions]
        assert len(row.output_positions) == (0 if harmful else outputs)
