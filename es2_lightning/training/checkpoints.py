"""What a checkpoint holds: trainable weights only, checked when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from es2_lightning.errors import UserError


def trainable_names(module: nn.Module) -> set[str]:
    """The state-dict keys of the parameters that train."""
    return {name for name, p in module.named_parameters() if p.requires_grad}


def keep_trainable(module: nn.Module, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The part of a state dict that trains."""
    names = trainable_names(module)
    return {name: tensor for name, tensor in state_dict.items() if name in names}


def require_same_keys(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint of something else, which non-strict loading would take silently.

    Raises:
        UserError: Keys are missing or unexpected, shapes differ, or it is no checkpoint of ours.
    """
    if "es2" not in checkpoint:
        raise UserError("ckpt_path: this checkpoint was not written by es2_lightning.train")
    saved = checkpoint["state_dict"]
    wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
    missing, unexpected = sorted(wanted.keys() - saved.keys()), sorted(saved.keys() - wanted.keys())
    reshaped = sorted(n for n in wanted.keys() & saved.keys() if wanted[n].shape != saved[n].shape)
    for what, names in (("lacks", missing), ("has unknown", unexpected), ("reshapes", reshaped)):
        if names:
            raise UserError(
                f"ckpt_path: the checkpoint {what} {len(names)} trainable weights, such as "
                f"{names[0]}: it is of another model or adapter; resume with the same model config"
            )


def require_same_layers(saved: Sequence[int], layers: Sequence[int]) -> None:
    """Refuse to go on with another layer set than the one that was trained.

    Raises:
        UserError: The layer sets differ.
    """
    if list(saved) != list(layers):
        raise UserError(
            f"ckpt_path: the checkpoint was trained with layers {list(saved)}, this run has "
            f"{list(layers)}: resume with layers=list layers.indices="
            f"[{','.join(map(str, saved))}], or start a new run without ckpt_path"
        )


def random_state() -> dict[str, Tensor]:
    """Where torch's random numbers are, on the CPU and on the current CUDA device; for dropout."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Go on with saved random numbers; what this machine has no device for is left out."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
