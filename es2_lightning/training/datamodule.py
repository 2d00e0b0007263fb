"""Prompts to batches. Built from prompts alone, connected to the tokenizer afterwards."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import lightning as L

from es2_lightning.backbone.chat import ChatRenderer
from es2_lightning.backbone.prompt_lengths import TooLong, fit_to_length
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError
from es2_lightning.objectives.kl import KLPositions, kl_positions
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits
from es2_lightning.training.batches import PairedBatch, PairedBatches

log = logging.getLogger(__name__)


class PromptDataModule(L.LightningDataModule):
    """Batches of harmless and harmful prompts in the configured numbers.

    Args:
        splits: The prompts.
        harmless_per_batch: Of each device; 50 in the paper.
        harmful_per_batch: Of each device; 10 in the paper.
        use_responses: Let a harmless prompt be followed by its response, where it has one, so that
            the KL can cover it. A harmful prompt's own response is never used.
        seed: Of the shuffles.
        too_long: What `connect` does about prompts that are too long, see `fit_to_length`.

    Raises:
        UserError: A class is empty.
    """

    def __init__(
        self,
        splits: PromptSplits,
        *,
        harmless_per_batch: int,
        harmful_per_batch: int,
        use_responses: bool,
        seed: int,
        too_long: TooLong = "drop",
    ) -> None:
        super().__init__()
        for name in ("train", "validation"):
            prompts: PromptSet = getattr(splits, name)
            for kind in ("harmless", "harmful"):
                if not getattr(prompts, kind):
                    raise UserError(
                        f"data: the {name} split has no {kind} prompts; at least one is needed"
                    )
        self.splits = splits
        self.harmless_per_batch = harmless_per_batch
        self.harmful_per_batch = harmful_per_batch
        self.use_responses = use_responses
        self.seed = seed
        self.too_long = too_long
        self.refusals: dict[Prompt, str] = {}
        self._renderer: ChatRenderer | None = None
        self._kl_positions: KLPositions = "all"

    def connect(self, renderer: ChatRenderer, *, kl_positions: KLPositions) -> None:
        """Say how prompts become tokens, and where the harmless KL is taken.

        Prompts longer than the renderer's `max_length` are dropped or cut, counted and logged.

        Raises:
            UserError: No prompt of a class is short enough, or the KL is taken on responses and
                there are none.
        """
        self._renderer = renderer
        self._kl_positions = kl_positions
        self.splits = fit_to_length(
            self.splits, renderer, too_long=self.too_long, response_of=self._response
        )
        if kl_positions == "response" and not any(map(self._response, self.splits.train.harmless)):
            raise UserError(
                "loss.kl_positions=response: no harmless training prompt has a response"
                + ("" if self.use_responses else " with data.use_responses=false")
                + ". Accepted: loss.kl_positions=all or last, or data.use_responses=true and "
                "prompts with responses, whose column data.source.response names."
            )
        for kind in ("harmless", "harmful"):
            wanted, there = (
                getattr(self, f"{kind}_per_batch"),
                len(getattr(self.splits.train, kind)),
            )
            if there < wanted:
                log.warning(
                    "train has %d %s prompts: a batch holds all of them, not data.%s_per_batch=%d",
                    there,
                    kind,
                    kind,
                    wanted,
                )

    def use_refusals(self, refusals: dict[Prompt, str]) -> None:
        """Give harmful training prompts the reference's refusals, for the KL on harmful prompts.

        A refusal with which its prompt would be longer than the renderer's `max_length` is dropped
        and counted. `connect` comes first.

        Args:
            refusals: Prompt to the reference's own refusal. A prompt that has none is still
                separated, but has no KL term.
        """
        assert self._renderer is not None, "connect() comes first"
        parts = self._renderer.token_lists(list(refusals), list(refusals.values()))
        limit = self._renderer.max_length
        self.refusals = {
            prompt: refusal
            for (prompt, refusal), (head, tail) in zip(refusals.items(), parts, strict=True)
            if len(head) + len(tail) <= limit
        }
        if dropped := len(refusals) - len(self.refusals):
            log.warning(
                "%d of %d refusals make their prompts longer than model.max_length=%d tokens and "
                "are dropped",
                dropped,
                len(refusals),
                limit,
            )

    def train_dataloader(self) -> PairedBatches:
        """An epoch is one pass over the harmful prompts."""
        return self._batches(self.splits.train, shuffle=True)

    def val_dataloader(self) -> PairedBatches:
        """The validation prompts, in their order."""
        return self._batches(self.splits.validation, shuffle=False)

    def _batches(self, prompts: PromptSet, *, shuffle: bool) -> PairedBatches:
        harmless, harmful = prompts.harmless, prompts.harmful

        def collate(harmless_numbers: list[int], harmful_numbers: list[int]) -> PairedBatch:
            return self.collate(
                [harmless[i] for i in harmless_numbers], [harmful[i] for i in harmful_numbers]
            )

        rank, ranks = 0, 1
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
        for kind, there in (("harmless", harmless), ("harmful", harmful)):
            if len(there) < ranks:
                raise UserError(
                    f"data: {len(there)} {kind} prompts in a split are fewer than the {ranks} "
                    "devices that share a batch: give more prompts, or set trainer.devices="
                    f"{max(1, len(there))}"
                )
        return PairedBatches(
            collate,
            num_harmless=len(harmless),
            num_harmful=len(harmful),
            harmless_per_batch=min(self.harmless_per_batch * ranks, len(harmless)),
            harmful_per_batch=min(self.harmful_per_batch * ranks, len(harmful)),
            seed=self.seed,
            shuffle=shuffle,
            rank=rank,
            ranks=ranks,
        )

    def collate(self, harmless: Sequence[Prompt], harmful: Sequence[Prompt]) -> PairedBatch:
        """Rows of both classes, harmless first, and where the KL of each is taken."""
        assert self._renderer is not None, "connect() comes first"
        prompts = [*harmless, *harmful]
        parts = self._renderer.token_lists(prompts, [self._response(p) for p in prompts])
        rows = []
        for prompt, (head, tail) in zip(prompts, parts, strict=True):
            positions: KLPositions | None = self._kl_positions
            if prompt.harmful:
                # A refusal is what its KL is for; without one there is none.
                positions = "response" if tail else None
            rows.append(
                TokenRow(
                    token_ids=(*head, *tail),
                    last_prompt_index=len(head) - 1,
                    output_positions=()
                    if positions is None
                    else tuple(kl_positions(len(head), len(tail), positions)),
                )
            )
        return PairedBatch(tuple(rows), tuple(p.harmful for p in prompts))

    def some_rows(self) -> tuple[TokenRow, ...]:
        """A few short training rows of both classes and different lengths, to try things on."""
        shortest = [
            sorted(prompts, key=lambda p: len(p.conversation))[:2]
            for prompts in (self.splits.train.harmless, self.splits.train.harmful)
        ]
        return self.collate(*shortest).rows

    def output_rows(self, *, batches: float) -> list[TokenRow]:
        """The rows of training and validation whose next-token distributions are compared.

        Args:
            batches: How many training batches there are at the most.
        """
        plan = self.train_dataloader()
        met: tuple[set[int], set[int]] = (set(), set())
        number = 0
        while number < batches and sum(map(len, met)) < len(self.splits.train.prompts):
            for numbers, found in zip(met, plan.indices(number), strict=True):
                numbers.update(found)
            number += 1
        train = self.splits.train
        harmless, harmful = (
            [prompts[i] for i in sorted(numbers)]
            for prompts, numbers in zip((train.harmless, train.harmful), met, strict=True)
        )
        validation = self.splits.validation
        return [
            row
            for classes in ((harmless, harmful), (validation.harmless, validation.harmful))
            for row in self.collate(*classes).rows
            if row.output_positions
        ]

    def _response(self, prompt: Prompt) -> str | None:
        if prompt.harmful:
            return self.refusals.get(prompt)
        return prompt.response if self.use_responses else None
