"""Tiny runs of the methods that ES2 is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.prompts.prompt import PromptSet, PromptSplits
from es2_lightning.training.circuit_breakers import CircuitBreakersModule
from es2_lightning.training.stl import STLModule

from ..tiny_models import tiny_splits
from .tiny_runs import TinyRun


def with_refusals(splits: PromptSplits) -> PromptSplits:
    """In words that the tiny tokenizer knows, of different lengths."""

    def refused(prompts: PromptSet) -> PromptSet:
        return PromptSet(
            tuple(
                replace(p, refusal="w7 w8 w9" if i % 2 else "w7") if p.harmful else p
                for i, p in enumerate(prompts.prompts)
            )
        )

    return PromptSplits(
        train=refused(splits.train),
        validation=refused(splits.validation),
        test=refused(splits.test),
    )


@dataclass
class STLRun(TinyRun):
    """As `TinyRun`, with the refusals that the prompts bring."""

    def __post_init__(self) -> None:
        self.splits = with_refusals(self.splits)
        super().__post_init__()

    def make_module(self, chat_model: ChatModel) -> STLModule:
        return STLModule(
            chat_model,
            schedule=self.schedule,
            optimizer=self.optimizer,
            step=self.step,
            packing=self.packing,
        )


@dataclass
class CircuitBreakersRun(STLRun):
    """Layers 1 and 2, so that a pass over what is rerouted ends below the last one of 4."""

    layers: tuple[int, ...] = (1, 2)
    own: dict[str, Any] = field(default_factory=dict)
    splits: PromptSplits = field(default_factory=tiny_splits)

    def make_module(self, chat_model: ChatModel) -> CircuitBreakersModule:
        return CircuitBreakersModule(
            chat_model,
            self.reference_object,
            layers=self.layers,
            schedule=self.schedule,
            optimizer=self.optimizer,
            step=self.step,
            packing=self.packing,
            **self.own,
        )
