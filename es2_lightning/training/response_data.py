"""Batches for methods that teach responses: right answers, refusals, completions to break."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from es2_lightning.backbone.chat import ChatRenderer
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError
from es2_lightning.objectives.kl import KLPositions
from es2_lightning.prompts.prompt import Prompt, PromptSet
from es2_lightning.prompts.refusals import refusal_of
from es2_lightning.training.batches import PairedBatch, PairedBatches
from es2_lightning.training.datamodule import PromptDataModule

log = logging.getLogger(__name__)


class ResponseDataModule(PromptDataModule):
    """Harmless prompts with their right answers, harmful ones with refusals.

    Harmless prompts without an answer are left out of the batches, and counted. Rows' output
    positions are those that predict the response.
    """

    def connect(self, renderer: ChatRenderer, *, kl_positions: KLPositions = "response") -> None:
        """As `PromptDataModule.connect`; the positions are those of responses in any case.

        Raises:
            UserError: No harmless prompt of a split has a response.
        """
        # Before the length is looked at, since responses count there.
        self.use_responses = True
        for name in ("train", "validation"):
            harmless = getattr(self.splits, name).harmless
            answered = sum(p.response is not None for p in harmless)
            if not answered:
                raise UserError(
                    f"data: no harmless {name} prompt has a response, and this method teaches "
                    "them. Accepted: prompts with responses, whose column "
                    "data.source.harmless.response names."
                )
            if answered < len(harmless):
                log.warning(
                    "%s: %d of %d harmless prompts have no response and are left out of the "
                    "batches",
                    name,
                    len(harmless) - answered,
                    len(harmless),
                )
        super().connect(renderer, kl_positions="response")

    def _batches(self, prompts: PromptSet, *, shuffle: bool) -> PairedBatches:
        taught = tuple(p for p in prompts.prompts if self._response(p) is not None)
        return super()._batches(PromptSet(taught), shuffle=shuffle)

    def _response(self, prompt: Prompt) -> str | None:
        return refusal_of(prompt) if prompt.harmful else prompt.response


class CircuitBreakerDataModule(ResponseDataModule):
    """Rows to retain, and rows to break: harmful prompts with harmful completions.

    A harmful prompt brings two rows: with its refusal, which is retained as harmless prompts with
    their answers are, and with its completion, which is broken; that one alone is `harmful` in the
    batch. Completions come with the prompts: the responses of harmful prompts
    (`data.source.harmful.response`), or else their targets, with which an answer would begin.
    Output positions are all tokens of a row.
    """

    def connect(self, renderer: ChatRenderer, *, kl_positions: KLPositions = "response") -> None:
        """As `ResponseDataModule.connect`.

        Raises:
            UserError: Also where no harmful prompt of a split has a completion.
        """
        super().connect(renderer, kl_positions=kl_positions)
        for name in ("train", "validation"):
            harmful = getattr(self.splits, name).harmful
            completed = sum(self._completion(p) is not None for p in harmful)
            if not completed:
                raise UserError(
                    f"data: no harmful {name} prompt has a completion, and method=circuit_breakers "
                    "breaks them. Accepted: harmful prompts with completions, whose column "
                    "data.source.harmful.response names, or their beginnings, "
                    "data.source.harmful.target."
                )
            if completed < len(harmful):
                log.warning(
                    "%s: %d of %d harmful prompts have no completion: only their refusals are "
                    "retained",
                    name,
                    len(harmful) - completed,
                    len(harmful),
                )

    def collate(self, harmless: Sequence[Prompt], harmful: Sequence[Prompt]) -> PairedBatch:
        """Rows to retain, then rows to break; the latter are those marked `harmful`."""
        assert self._renderer is not None, "connect() comes first"
        retained = super().collate(harmless, harmful).rows
        completed = [p for p in harmful if self._completion(p) is not None]
        parts = self._renderer.token_lists(completed, [self._completion(p) for p in completed])
        limit = self._renderer.max_length
        broken = [TokenRow((*head, *tail)[:limit], len(head) - 1) for head, tail in parts]
        rows = (*retained, *broken)
        return PairedBatch(
            tuple(replace(row, output_positions=tuple(range(len(row.token_ids)))) for row in rows),
            (False,) * len(retained) + (True,) * len(broken),
        )

    @staticmethod
    def _completion(prompt: Prompt) -> str | None:
        return prompt.response if prompt.response is not None else prompt.target
