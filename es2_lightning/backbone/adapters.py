"""LoRA through peft."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from es2_lightning.errors import UserError


def add_lora(
    model: nn.Module,
    *,
    r: int = 8,
    lora_alpha: int = 16,
    lora_dropout: float = 0.05,
    target_modules: str | Sequence[str] = "all-linear",
) -> PeftModel:
    """Wrap a causal LM with a fresh LoRA adapter; only the adapter is trainable.

    Args:
        model: A transformers causal LM.
        r: Rank.
        lora_alpha: Scaling; the update is multiplied by lora_alpha / r.
        lora_dropout: Dropout on the adapter's input, in train mode.
        target_modules: peft's own words: module names, a pattern, or `all-linear`.

    Raises:
        UserError: No module has a name that `target_modules` gives.
    """
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        # peft's own modules come in train mode, dropout active, whatever mode the model is in.
        return get_peft_model(model, config).train(model.training)
    except ValueError as error:
        names = sorted(
            {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if type(m) is nn.Linear}
        )
        raise UserError(
            f"model.lora.target_modules={targets}: {str(error).splitlines()[0]}\n"
            f"accepted are all-linear, or some of: {', '.join(names)}"
        ) from error


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The base model inside the `with`: the adapter is disabled.

    peft's `disable_adapter()` switches `requires_grad` back on for every adapter tensor when it
    exits (peft #3447), frozen ones too; here each keeps what it had.
    """
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


def adapter_is_on(model: nn.Module) -> bool:
    """Whether a forward pass goes through the adapter now."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    return bool(layers) and not any(layer.disable_adapters for layer in layers)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter as peft itself does, loadable with `PeftModel.from_pretrained`."""
    model.save_pretrained(str(folder), safe_serialization=True)
