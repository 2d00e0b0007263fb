"""The frozen reference: what the model answered before it was tuned.

One interface, chosen by config. The kinds give the same loss and the same gradients to rounding.
A reference is never in a checkpoint, never in train mode, never receives gradients.

Shape legend: E outputs: all output positions of all rows, in their order. D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from es2_lightning.backbone.adapters import adapter_is_on, adapter_off
from es2_lightning.backbone.chat import Asked, TokenBatch
from es2_lightning.backbone.chat_model import ChatModel, eval_mode
from es2_lightning.backbone.head import linear_head, logits_of
from es2_lightning.backbone.head_statistics import HeadStatistics
from es2_lightning.backbone.layouts import Packing, lay_out
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.backbone.row_pass import run_rows
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError

Logits = Callable[[Tensor], Tensor]
"""(…, D) → (…, V)."""


@dataclass(frozen=True)
class HiddenOutputs:
    """What left the reference's final norm, and the head that makes logits of it.

    Attributes:
        hidden_ED: Without gradients.
        head: As tensors, or, where it is no plain linear map, as a function.
    """

    hidden_ED: Tensor
    head: LinearHead | Logits

    def select(self, index: Tensor) -> HiddenOutputs:
        """Some of the outputs."""
        return replace(self, hidden_ED=self.hidden_ED.index_select(0, index))


ReferenceOutputs = HiddenOutputs | HeadStatistics


class Reference(Protocol):
    """The reference's answers."""

    def outputs(self, rows: Sequence[TokenRow]) -> ReferenceOutputs:
        """Its next-token distributions at all output positions of the rows, in their order."""
        ...

    def chat_model(self) -> Any:
        """A context manager that yields the reference as a `ChatModel`, in eval mode."""
        ...

    def root(self) -> OutputsOf | None:
        """What must be sharded where the tuned model is; None: no weights of its own."""
        ...


class OutputsOf(nn.Module):
    """A model whose forward gives outputs of rows: what is sharded is called as a whole."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Sequence[TokenRow], *, packing: Packing) -> HiddenOutputs:
        """As `forward_outputs`."""
        return forward_outputs(self.model, rows, packing=packing)


class AdapterReference:
    """The same weights with the adapter off: no second copy. Needs a peft model.

    Args:
        chat_model: The model that is tuned.
        packing: How its passes are laid out.
    """

    def __init__(self, chat_model: ChatModel, *, packing: Packing = "off") -> None:
        self._chat_model = chat_model
        self.packing: Packing = packing

    def outputs(self, rows: Sequence[TokenRow]) -> HiddenOutputs:
        """Of a forward pass with the adapter off."""
        with self.chat_model() as reference:
            return forward_outputs(reference.model, rows, packing=self.packing, off=adapter_off)

    @contextmanager
    def chat_model(self) -> Iterator[ChatModel]:
        """The model with its adapter off, in eval mode; afterwards as it was."""
        model = self._chat_model.model
        with eval_mode(model), adapter_off(model):
            assert not adapter_is_on(model) and not model.training
            yield self._chat_model

    def root(self) -> None:
        """The tuned model's own weights."""


class CopyReference:
    """A second, frozen model; what is needed when all weights train.

    Args:
        chat_model: The model that is tuned, as it is now.
        packing: How its passes are laid out.
    """

    def __init__(self, chat_model: ChatModel, *, packing: Packing = "off") -> None:
        self._tuned = chat_model
        self.packing: Packing = packing
        copied = copy.deepcopy(chat_model.model)
        if hasattr(copied, "unload"):
            # The copy is of the base model: an adapter in it would be dead weight.
            copied = copied.unload()
        self._copy = ChatModel(
            model=copied.requires_grad_(False).eval(),
            tokenizer=chat_model.tokenizer,
            renderer=chat_model.renderer,
        )
        self._root = OutputsOf(self._copy.model).eval()

    def outputs(self, rows: Sequence[TokenRow]) -> HiddenOutputs:
        """Of the copy's forward pass."""
        with self.chat_model():
            outputs = self._root(rows, packing=self.packing)
        head = linear_head(self._tuned.model)
        if head is None or head.trains:
            return outputs
        # The same weights; that they are the same tensors spares digits and a product.
        return replace(outputs, head=head)

    @contextmanager
    def chat_model(self) -> Iterator[ChatModel]:
        """The frozen copy, on the device of the model that is tuned."""
        model: nn.Module = self._copy.model
        assert not model.training
        # Held outside the LightningModule, so that neither its checkpoint nor its `train()` reach
        # it; hence nobody else moves it either.
        if not isinstance(self._root, FSDPModule):
            model.to(self._tuned.device)
        yield self._copy

    def root(self) -> OutputsOf:
        """What the copy runs in."""
        return self._root


class ModelReference:
    """A model that is there already: a base beside the full model that was tuned from it.

    Args:
        base: The model.
        packing: How its passes are laid out.
    """

    def __init__(self, base: ChatModel, *, packing: Packing = "off") -> None:
        self._base = base
        self.packing: Packing = packing

    def outputs(self, rows: Sequence[TokenRow]) -> HiddenOutputs:
        """Of the base's forward pass."""
        with self.chat_model() as reference:
            return forward_outputs(reference.model, rows, packing=self.packing)

    @contextmanager
    def chat_model(self) -> Iterator[ChatModel]:
        """The base, in eval mode."""
        with eval_mode(self._base.model):
            yield self._base

    def root(self) -> None:
        """Of no training."""


REFERENCES: dict[str, Callable[..., AdapterReference | CopyReference]] = {
    "adapter": AdapterReference,
    "copy": CopyReference,
}


def make_reference(
    kind: str, chat_model: ChatModel, *, packing: Packing = "off"
) -> AdapterReference | CopyReference:
    """The reference of the given kind.

    Raises:
        UserError: An unknown kind, or `adapter` on a model without one.
    """
    if kind not in REFERENCES:
        raise UserError(f"model.reference={kind}: accepted are {', '.join(REFERENCES)}")
    if kind == "adapter" and not hasattr(chat_model.model, "disable_adapter"):
        raise UserError(
            "model.reference=adapter needs LoRA; with model.mode=full use model.reference=copy"
        )
    return REFERENCES[kind](chat_model, packing=packing)


@torch.no_grad()
def forward_outputs(
    model: Any,
    rows: Sequence[TokenRow],
    *,
    packing: Packing,
    off: Callable[[Any], Any] | None = None,
) -> HiddenOutputs:
    """What leaves the final norm at all output positions of some rows, in their order.

    Args:
        model: In eval mode, hence without dropout: a shared prefix is exact.
        rows: At least one with outputs; the others are not run.
        packing: How the pass is laid out.
        off: What switches an adapter off again when logits are wanted later.
    """
    wanted = [row for row in rows if row.output_positions]
    assert wanted, "no row has output positions"
    device = next(model.parameters()).device
    layout = lay_out(wanted, packing=packing, share_prefix=packing in ("grid", "block_mask")).to(
        device
    )
    hidden = run_rows(model, layout).outputs
    assert hidden is not None
    head = linear_head(model)
    return HiddenOutputs(
        hidden.index_select(0, layout.output_of),
        head if head is not None else logits_without_adapter(model, off),
    )


def logits_without_adapter(model: Any, off: Callable[[Any], Any] | None) -> Logits:
    """The head in its general form, with what adapts it switched off."""

    def logits(hidden: Tensor) -> Tensor:
        if off is None:
            return logits_of(model, hidden)
        with eval_mode(model), off(model):
            return logits_of(model, hidden)

    return logits


@torch.no_grad()
def forward_logits(model: Any, batch: TokenBatch) -> Tensor:
    """(B, T, V) of a plain forward pass, without gradients."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return output.logits


def answers_differ(chat_model: ChatModel, reference: Reference, prompt: Asked) -> bool:
    """Whether the model's logits on a prompt differ at all from its reference's."""
    tokens = chat_model.renderer.encode([prompt]).to(chat_model.device)
    with eval_mode(chat_model.model):
        tuned = forward_logits(chat_model.model, tokens)
    with reference.chat_model() as base:
        return not torch.equal(tuned, forward_logits(base.model, tokens).to(tuned.device))
