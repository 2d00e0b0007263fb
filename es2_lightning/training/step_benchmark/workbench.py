"""One model, real or on `meta`, and what the ways of a step need beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from es2_lightning.backbone.cache_rows import cache_bytes
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.checkpointing import disable_checkpointing, enable_checkpointing
from es2_lightning.backbone.compiled import compile_blocks
from es2_lightning.backbone.held_outputs import (
    Held,
    HeldHiddenStates,
    HeldStatistics,
    frozen_head,
)
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.lean_norms import make_norms_lean
from es2_lightning.backbone.packing_choice import choose_packing
from es2_lightning.backbone.reference import (
    AdapterReference,
    CopyReference,
    Reference,
)
from es2_lightning.backbone.reference_cache import CachedReference
from es2_lightning.backbone.row_store import RowStore
from es2_lightning.backbone.structure import causal_lm_of
from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.objective import ES2Objective
from es2_lightning.training.settings import LossSettings
from es2_lightning.training.step_benchmark.cache_on_meta import CacheOnMeta
from es2_lightning.training.step_benchmark.circuit_breakers_style import (
    circuit_breakers_style_step,
)
from es2_lightning.training.step_benchmark.naive import PaddedRows, naive_step
from es2_lightning.training.step_benchmark.ways import NAIVE, Way

Step = Callable[[], tuple[Tensor, Tensor]]
"""A forward and a backward pass; gives the loss and the KL, detached."""


@dataclass(frozen=True)
class Outcome:
    """What a step gave: scalars, and the gradient of each trained tensor."""

    loss: Tensor
    kl: Tensor
    gradients: tuple[Tensor, ...]


class Workbench:
    """Computes one step in any way.

    Args:
        chat_model: With its adapter, in train mode.
        batch: Harmless and harmful prompts.
        layer: That is separated, 1 … L.
        kl_positions: Where the batch's KL is taken.
    """

    def __init__(
        self, chat_model: ChatModel, batch: PairedBatch, *, layer: int, kl_positions: str
    ) -> None:
        self.chat_model = chat_model
        self.batch = batch
        self.layer = layer
        # Distances as they come: no norms need to be measured.
        self._loss = LossSettings(distance_unit="raw", kl_positions=kl_positions)
        self._caches: dict[tuple[str, Packing], Reference] = {}
        self._objectives: dict[str, ES2Objective] = {}
        self._packings: dict[str, Packing] = {}
        self._forwards: dict[str, dict[nn.Module, Any]] = {}

    @property
    def model(self) -> Any:
        """The causal LM with its adapter."""
        return self.chat_model.model

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that train."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.chat_model.device

    def weight_bytes_of(self, way: Way) -> int:
        """Of the model with its adapter, and of a second copy where the way has one."""
        adapter = sum(p.numel() * p.element_size() for p in self.trained)
        model = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return model + (model - adapter if way.reference == "copy" else 0)

    def cache_bytes_of(self, way: Way) -> int:
        """Of what is cached of this batch's prompts."""
        if way.reference != "cached":
            return 0
        causal_lm = causal_lm_of(self.model)
        width = causal_lm.config.get_text_config(decoder=True).hidden_size
        return cache_bytes(self.batch.rows, hold=way.hold, width=width, dtype=causal_lm.dtype)

    @cached_property
    def copy(self) -> CopyReference:
        """The second copy of the model, which a way without it does not need."""
        return CopyReference(self.chat_model)

    def packing_of(self, way: Way) -> Packing:
        """How a way's passes are laid out."""
        assert way.step is not None
        wanted = way.step.packing
        if wanted not in self._packings:
            self._packings[wanted] = choose_packing(self.model, wanted, self.batch.rows[:3])
        return self._packings[wanted]

    def prepare(self, way: Way) -> None:
        """Build what the way computes once and for all: its cache."""
        if way.reference == "cached":
            self._reference(way)

    def outcome(self, way: Way) -> Outcome:
        """Compute the step once."""
        loss, kl = self.step(way)()
        gradients = tuple(
            torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.trained
        )
        self.forget_gradients()
        return Outcome(loss, kl, gradients)

    def step(self, way: Way) -> Step:
        """What computes the step, its backward pass included, from gradients of None."""
        losses = self._losses(way)

        def step() -> tuple[Tensor, Tensor]:
            self.forget_gradients()
            with self._as_asked(way):
                with self._autocast(way):
                    loss, kl = losses()
                loss.backward()
            return loss.detach(), kl.detach()

        return step

    def forget_gradients(self) -> None:
        """As an optimizer's zero_grad."""
        for parameter in self.trained:
            parameter.grad = None

    def _losses(self, way: Way) -> Step:
        if way.step is None:
            return self._yardstick(way)
        objective = self.objective(way)

        def losses() -> tuple[Tensor, Tensor]:
            found = objective(self.batch, [self.layer])
            return found.loss, found.kl

        return losses

    def _yardstick(self, way: Way) -> Step:
        harmless, harmful = self._padded
        weights = (self._loss.kl_weight, self._loss.separation_weight)

        def naive() -> tuple[Tensor, Tensor]:
            with self.copy.chat_model() as reference:
                found = naive_step(
                    self.model, reference.model, harmless, harmful, self.layer, weights
                )
            return found.loss, found.kl

        def circuit_breakers_style() -> tuple[Tensor, Tensor]:
            found = circuit_breakers_style_step(self.model, harmless, harmful, self.layer, weights)
            return found.loss, found.kl

        return naive if way.name == NAIVE else circuit_breakers_style

    @cached_property
    def _padded(self) -> tuple[PaddedRows, PaddedRows]:
        """Both classes, padded to the batch's longest."""
        rows, flags = self.batch.rows, self.batch.harmful
        longest = max(len(row.token_ids) for row in rows)
        harmless, harmful = (
            [row for row, flag in zip(rows, flags, strict=True) if flag is wanted]
            for wanted in (False, True)
        )
        device = self.device
        return (
            PaddedRows.of(harmless, device, length=longest),
            PaddedRows.of(harmful, device, length=longest),
        )

    def objective(self, way: Way) -> ES2Objective:
        """What computes the losses of a way of the training path."""
        if way.name not in self._objectives:
            self._objectives[way.name] = ES2Objective(
                self.model,
                self._reference(way),
                layers=[self.layer],
                settings=self._loss,
                step=way.step,
                packing=self.packing_of(way),
            )
        return self._objectives[way.name]

    def _reference(self, way: Way) -> Reference:
        packing = self.packing_of(way)
        if way.reference == "adapter":
            return AdapterReference(self.chat_model, packing=packing)
        if way.reference == "copy":
            return self.copy
        key = (way.hold, packing)
        if key not in self._caches:
            self._caches[key] = self._cache(way.hold, packing)
        return self._caches[key]

    def _cache(self, hold: str, packing: Packing) -> Reference:
        width = causal_lm_of(self.model).config.get_text_config(decoder=True).hidden_size
        if self.device.type == "meta":
            return CacheOnMeta(self.chat_model, hold=hold, width=width)
        held: Held = HeldStatistics(width=width)
        if hold == "hidden_states":
            dtype = causal_lm_of(self.model).dtype
            held = HeldHiddenStates(frozen_head(self.model), width=width, computed=dtype)
        live = AdapterReference(self.chat_model, packing=packing)
        cache = CachedReference(live, RowStore(), held=held, tuned=self.chat_model)
        cache.ensure(self.batch.rows)
        return cache

    @contextmanager
    def _as_asked(self, way: Way) -> Iterator[None]:
        """The model with what only this way does to it."""
        forwards = self._forwards_of(way)
        for module, forward in forwards.items():
            module.forward = forward
        if way.checkpointing:
            enable_checkpointing(self.model)
        try:
            yield
        finally:
            for module in forwards:
                del module.forward
            if way.checkpointing:
                disable_checkpointing(self.model)

    def _forwards_of(self, way: Way) -> dict[nn.Module, Any]:
        """What a way calls in place of some modules' own forward; it serves no other way."""
        if way.step is None:
            return {}
        if way.name not in self._forwards:
            if way.step.lean_norms:
                make_norms_lean(self.model)
            if way.step.compile:
                compile_blocks(self.model)
            replaced = [m for m in self.model.modules() if "forward" in vars(m)]
            self._forwards[way.name] = {module: vars(module)["forward"] for module in replaced}
            for module in replaced:
                del module.forward
        return self._forwards[way.name]

    def _autocast(self, way: Way) -> Any:
        if not way.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)
