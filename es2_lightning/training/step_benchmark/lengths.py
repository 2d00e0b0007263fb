"""How many tokens the prompts of a measured batch have, and a batch of so many."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from es2_lightning.backbone.chat import ChatRenderer
    from es2_lightning.prompts.prompt import PromptSplits
    from es2_lightning.training.batches import PairedBatch

TOKENS_PER_WORD = 1.3
"""Of English in the vocabularies of today's chat models, about."""
TEMPLATE_PREFIX, TEMPLATE_SUFFIX = 5, 5
"""Tokens that a chat template without a system prompt puts around a prompt, as Llama-3's."""

SHARES = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1)
BUILT_IN = {
    "harmless": (4, 6, 8, 9, 9, 10, 12, 13, 14, 16, 20, 22, 26, 29, 33, 86),
    "harmful": (9, 10, 12, 13, 14, 14, 16, 16, 17, 18, 20, 21, 23, 25, 26, 32),
}
"""Quantiles, at SHARES, of the tokens of 1678 instructions as Alpaca's and of AdvBench's 526
harmful ones; words times TOKENS_PER_WORD."""


@dataclass(frozen=True)
class BatchLengths:
    """Tokens of each prompt of a batch, the template's included.

    Attributes:
        harmless: Of the harmless prompts.
        harmful: Of the harmful ones.
        prefix: How many tokens all of them begin with.
        source: Where the lengths come from, in words.
    """

    harmless: tuple[int, ...]
    harmful: tuple[int, ...]
    prefix: int
    source: str

    @property
    def longest(self) -> int:
        """Of both classes: what a batch is padded to."""
        return max(*self.harmless, *self.harmful)

    @property
    def tokens(self) -> int:
        """Of both classes."""
        return sum(self.harmless) + sum(self.harmful)

    @property
    def fill(self) -> float:
        """The share of tokens in the batch padded to the longest; the rest is padding."""
        return self.tokens / (self.longest * (len(self.harmless) + len(self.harmful)))


def built_in_lengths(*, harmless: int, harmful: int, prefix: int = TEMPLATE_PREFIX) -> BatchLengths:
    """Instructions as Alpaca's and AdvBench's, in a chat template.

    The lengths are spread evenly over their distribution rather than drawn, so that one batch
    stands for all, whatever the seed.

    Args:
        harmless: How many harmless prompts.
        harmful: How many harmful ones.
        prefix: Tokens before the prompt, those of a system prompt included.
    """

    def lengths(kind: str, number: int) -> tuple[int, ...]:
        texts = _spread(SHARES, BUILT_IN[kind], number)
        return tuple(prefix + length + TEMPLATE_SUFFIX for length in texts)

    return BatchLengths(
        lengths("harmless", harmless),
        lengths("harmful", harmful),
        prefix,
        "built in, as Alpaca's and AdvBench's instructions",
    )


def lengths_of_prompts(
    splits: PromptSplits,
    renderer: ChatRenderer | None,
    *,
    harmless: int,
    harmful: int,
    prefix: int | None = None,
) -> BatchLengths:
    """Those of training prompts, spread evenly over their distribution.

    Args:
        splits: The prompts.
        renderer: Of the model, which says what the tokens are; None: estimated from words.
        harmless: How many harmless prompts.
        harmful: How many harmful ones.
        prefix: Where there is no renderer: tokens before the prompt; None: Llama-3's.

    Raises:
        UserError: A class is empty.
    """
    found = {"harmless": splits.train.harmless, "harmful": splits.train.harmful}
    for kind, prompts in found.items():
        if not prompts:
            raise UserError(f"data.source: there are no {kind} training prompts")
    if renderer is None:
        prefix = TEMPLATE_PREFIX if prefix is None else prefix
        around = prefix + TEMPLATE_SUFFIX
        sizes = {
            kind: [around + round(TOKENS_PER_WORD * len(p.text.split())) for p in prompts]
            for kind, prompts in found.items()
        }
        source = f"the training prompts, estimated: {TOKENS_PER_WORD} tokens a word"
    else:
        rows = {
            kind: [head for head, _ in renderer.token_lists(prompts, [None] * len(prompts))]
            for kind, prompts in found.items()
        }
        sizes = {kind: [len(row) for row in some] for kind, some in rows.items()}
        prefix = _common_prefix([*rows["harmless"], *rows["harmful"]])
        source = "the training prompts, in the model's own tokens and template"
    chosen = {
        kind: _spread([i / max(len(some) - 1, 1) for i in range(len(some))], sorted(some), number)
        for (kind, some), number in zip(sizes.items(), (harmless, harmful), strict=True)
    }
    return BatchLengths(chosen["harmless"], chosen["harmful"], prefix, source)


def random_batch(
    lengths: BatchLengths, *, vocab_size: int, kl_positions: str, seed: int
) -> PairedBatch:
    """Random tokens of these lengths, all beginning with the same ones.

    Args:
        lengths: Of each prompt, its prefix included.
        vocab_size: Tokens are drawn below it.
        kl_positions: Where the KL of harmless prompts is taken: `all` or `last`.
        seed: Of the tokens and of the prompts' order.
    """
    from es2_lightning.training.batches import PairedBatch

    rng = random.Random(seed)
    prefix = [rng.randrange(vocab_size) for _ in range(lengths.prefix)]

    def row(length: int, number: int, outputs: bool) -> TokenRow:
        text = [rng.randrange(vocab_size) for _ in range(length - len(prefix))]
        if text:
            # Different in each row, so that exactly the prefix is shared.
            text[0] = number % vocab_size
        positions = range(length) if kl_positions == "all" else range(length - 1, length)
        return TokenRow((*prefix, *text), length - 1, tuple(positions) if outputs else ())

    rows: list[TokenRow] = []
    flags: list[bool] = []
    for harmful, some in ((False, lengths.harmless), (True, lengths.harmful)):
        for length in rng.sample(some, len(some)):
            rows.append(row(length, len(rows), not harmful))
            flags.append(harmful)
    return PairedBatch(rows=tuple(rows), harmful=tuple(flags))


def _spread(shares: Sequence[float], quantiles: Sequence[float], number: int) -> tuple[int, ...]:
    """So many values at even distances over a distribution, from its quantiles."""
    import numpy as np

    middle = (np.arange(number) + 0.5) / number
    return tuple(int(value) for value in np.rint(np.interp(middle, shares, quantiles)))


def _common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
