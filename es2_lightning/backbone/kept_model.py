"""A base model that outlives the job that loaded it: the next job of a sweep takes it over."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.checkpointing import disable_checkpointing
from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.backbone.structure import causal_lm_of

log = logging.getLogger(__name__)

MODES = ("lora", "dora")
"""What `model.mode` leaves the base weights as they are; 4-bit weights are not compared."""
OF_LOADING = (
    "name_or_path",
    "revision",
    "dtype",
    "attn_implementation",
    "trust_remote_code",
    "use_safetensors",
    "max_length",
    "system_prompt",
    "chat_template_kwargs",
    "template_date",
    "structure",
)
"""The settings that make the loaded model what it is; the others are about what is trained."""
LEFT_BEHIND = {"_gradient_checkpointing_func", "gradient_checkpointing"}
"""Attributes of modules that checkpointing leaves when it is switched off."""


class KeptModel:
    """Loads a base model, or gives the one that was given back, as if it had just been loaded.

    What is taken must be given back, or it is loaded again: a job that failed gives nothing back.

    Args:
        keeps: Whether what is given back is kept at all.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self._keeps = keeps
        self._key = ""
        self._kept: ChatModel | None = None
        self._as_loaded: _AsLoaded | None = None

    def load(self, settings: ModelSettings, *, device: torch.device) -> ChatModel:
        """The base model of these settings, in eval mode.

        Raises:
            UserError: As `load_chat_model`.
        """
        key = model_key(settings)
        kept, self._kept = self._kept, None
        if kept is not None and key == self._key:
            kept.model.to(device)
            return kept
        # Two of them may not fit into memory.
        del kept
        _free()
        self._key, self._as_loaded = "", None
        loaded = load_chat_model(settings)
        loaded.model.to(device)
        if self._keeps and settings.mode in MODES:
            self._key, self._as_loaded = key, _AsLoaded.of(loaded.model)
        return loaded

    def nbytes(self, device: torch.device) -> int:
        """What is kept now on a device, which the next job takes over or frees."""
        if self._kept is None or self._kept.device != device:
            return 0
        return sum(p.nbytes for p in self._kept.model.parameters())

    def give_back(self, chat_model: ChatModel) -> None:
        """Take the adapter off, and keep what is below it, if it is what was loaded.

        Args:
            chat_model: What `load` gave, with an adapter around it; of no use afterwards.
        """
        if self._as_loaded is None:
            return
        model = chat_model.model
        base = model.unload() if hasattr(model, "peft_config") else model
        self._as_loaded.restore(base)
        if (difference := self._as_loaded.difference(base)) is not None:
            log.info("The next job loads the model anew: this one changed its %s", difference)
            self._as_loaded = None
            return
        # Another object: what the last job holds shall not follow the next one's adapter.
        self._kept = ChatModel(base, chat_model.tokenizer, chat_model.renderer)


def model_key(settings: ModelSettings) -> str:
    """All that a loaded base model depends on: settings, and which files a folder holds."""
    folder = Path(settings.name_or_path).expanduser()
    files = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*") if folder.is_dir() else ())
        if path.is_file()
    ]
    chosen = asdict(settings)
    return json.dumps([{name: chosen[name] for name in OF_LOADING}, files], default=str)


@dataclass(frozen=True)
class _AsLoaded:
    """What a model was like when it had been loaded.

    Attributes:
        flags: Of each parameter, whether it takes gradients.
        modes: Of each module, whether it is in train mode.
        makeup: Modules, their attributes and hooks, and what config.json became.
        sums: Of each tensor of weights, its type, shape and sum.
        device: Where `sums` were taken: elsewhere, they differ in their last digits.
    """

    flags: dict[str, bool]
    modes: dict[str, bool]
    makeup: dict[str, Any]
    sums: dict[str, Any]
    device: torch.device

    @classmethod
    def of(cls, model: nn.Module) -> _AsLoaded:
        return cls(
            flags={name: p.requires_grad for name, p in model.named_parameters()},
            modes={name: module.training for name, module in model.named_modules()},
            makeup=_makeup(model),
            sums=_sums(model),
            device=next(model.parameters()).device,
        )

    def restore(self, model: nn.Module) -> None:
        """Undo what a job does to a model beside its adapter."""
        disable_checkpointing(model)
        for name, module in model.named_modules():
            # Lean norms and compiled blocks have a forward of their own in the instance.
            if "forward" in vars(module) and "forward" not in self.makeup.get(name, ()):
                del module.forward
            module.training = self.modes.get(name, module.training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.flags.get(name, parameter.requires_grad))
            parameter.grad = None
        model.to(self.device)

    def difference(self, model: nn.Module) -> str | None:
        """What is not as it was, in a word; None where nothing is."""
        if _makeup(model) != self.makeup:
            return "modules"
        return None if _sums(model) == self.sums else "weights"


def _makeup(model: nn.Module) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: (type(module), *sorted(_attributes(module))) for name, module in model.named_modules()
    }
    return made | {"config.json": json.dumps(causal_lm_of(model).config.to_dict(), default=str)}


def _attributes(module: nn.Module) -> Iterator[str]:
    for name, value in vars(module).items():
        if name in LEFT_BEHIND and value is not True:
            continue
        # Of hooks, how many there are; of plain values, what they are.
        if name.endswith("_hooks"):
            if value:
                yield f"{name}={len(value)}"
        elif isinstance(value, (bool, int, float, str)) and name != "training":
            yield f"{name}={value}"
        else:
            yield name


@torch.no_grad()
def _sums(model: nn.Module) -> dict[str, Any]:
    """They change whenever a weight does, and cost one reading of all of them."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    totals = {name: t.sum(dtype=torch.float64) for name, t in tensors.items()}
    return {
        name: (tensors[name].dtype, tuple(tensors[name].shape), float(total))
        for name, total in totals.items()
    }


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
