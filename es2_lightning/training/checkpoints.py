"""What a checkpoint holds: trainable weights only, checked when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from es2_lightning.backbone.model_identity import differences
from es2_lightning.errors import UserError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, its tensors left on the disk until they are used.

    Raises:
        UserError: There is no such file, or it is no checkpoint.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError(
            f"ckpt_path={path}: no such file; accepted are a checkpoint that "
            "es2_lightning.train wrote, such as outputs/<run>/checkpoints/last.ckpt, and `last`"
        ) from error
    except (UnpicklingError, EOFError, OSError, RuntimeError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise UserError(
            f"ckpt_path={path}: the file cannot be read as a checkpoint ({reason})"
        ) from error
    return found if isinstance(found, dict) else {}


def trainable_names(module: nn.Module) -> set[str]:
    """The state-dict keys of the parameters that train."""
    return {name for name, p in module.named_parameters() if p.requires_grad}


def keep_trainable(module: nn.Module, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The part of a state dict that trains."""
    names = trainable_names(module)
    return {name: tensor for name, tensor in state_dict.items() if name in names}


def require_ours(checkpoint: dict[str, Any]) -> None:
    """Refuse what somebody else wrote.

    Raises:
        UserError: It has not what `es2_lightning.train` writes.
    """
    if "model" not in checkpoint.get("es2", {}):
        raise UserError(
            "ckpt_path: this checkpoint was not written by es2_lightning.train, or by an earlier "
            "version of it"
        )


def require_same_method(saved: Mapping[str, Any], here: str) -> None:
    """Refuse to go on with another method than the one that began.

    Args:
        saved: What the checkpoint says of its run; where it names no method, that was ES2.
        here: This run's.

    Raises:
        UserError: They differ.
    """
    if (before := saved.get("method", "ES2Module")) != here:
        raise UserError(
            f"ckpt_path: the checkpoint was trained by {before}, and this run's method is {here}: "
            "resume with the same method=…, or start a new run without ckpt_path"
        )


def require_same_keys(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint of something else, which non-strict loading would take silently.

    Raises:
        UserError: Keys are missing or unexpected, or shapes differ.
    """
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


def require_same_model(saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse to go on with another base model, or other tokens for the same prompts.

    Args:
        saved: The identity in the checkpoint (`es2_lightning.backbone.model_identity`).
        here: This run's; empty where it was not asked for, and nothing is compared.

    Raises:
        UserError: They differ.
    """
    if here and (differing := differences(saved, here)):
        raise UserError(
            f"ckpt_path: the checkpoint was trained on another base model, or with another "
            f"tokenizer or chat template: {'; '.join(differing)}. Accepted: the model config that "
            "it was trained with, or a new run without ckpt_path."
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
