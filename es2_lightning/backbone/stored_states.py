"""Response states in a safetensors file, good for what they were read of and for nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from es2_lightning.atomic_files import replacing
from es2_lightning.backbone.chat import Asked
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.model_identity import Identity, differences, digest, model_identity
from es2_lightning.backbone.response_states import (
    PASS_TOKENS,
    ListStates,
    ResponseToken,
    StateReading,
    response_states,
    state_reading,
)

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

log = logging.getLogger(__name__)
INSTRUCTIONS, RESPONSES, LENGTHS = "instructions", "responses", "responses_per_list"
FINGERPRINT = "fingerprint"


def stored_response_states(
    path: Path,
    chat_model: ChatModel,
    lists: Sequence[tuple[Asked, Sequence[str]]],
    *,
    layer: int | None = None,
    response_token: ResponseToken = "last",
    batch_tokens: int = PASS_TOKENS,
) -> ListStates:
    """`response_states`, read from a file that holds them, or computed and written to it.

    A file of other lists, of another model or adapter, or read elsewhere, is replaced.

    Args:
        path: The file; its folder is made where it is missing.
        chat_model: As for `response_states`, as are the others.
        lists: Instructions, and the responses to each.
        layer: 1 … L; None: a quarter of the depth.
        response_token: Which token of a response is read.
        batch_tokens: The most in one forward pass.

    Raises:
        UserError: As `response_states`.
    """
    reading = state_reading(chat_model, layer=layer, response_token=response_token)
    fingerprint = states_fingerprint(chat_model, lists, reading)
    found = _read(path, fingerprint, reading)
    if found is not None:
        return found
    states = response_states(
        chat_model,
        lists,
        layer=reading.layer,
        response_token=response_token,
        batch_tokens=batch_tokens,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        INSTRUCTIONS: states.instructions_ND,
        RESPONSES: torch.cat([torch.empty(0, reading.width), *states.responses]),
        LENGTHS: torch.tensor([len(some) for some in states.responses], dtype=torch.long),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={FINGERPRINT: json.dumps(fingerprint)})
    return states


def states_fingerprint(
    chat_model: ChatModel, lists: Sequence[tuple[Asked, Sequence[str]]], reading: StateReading
) -> dict[str, str]:
    """All that the states of some lists depend on, by name."""
    asked = [
        (prompt if isinstance(prompt, str) else asdict(prompt), list(responses))
        for prompt, responses in lists
    ]
    return {
        **model_identity(chat_model),
        "the model's weights, its adapter included": weights_fingerprint(chat_model.model),
        "layer": str(reading.layer),
        "response_token": reading.response_token,
        "the lists": digest(asked),
    }


def _read(path: Path, fingerprint: Identity, reading: StateReading) -> ListStates | None:
    """What a file holds; None where there is none, or one of other states."""
    try:
        with safe_open(path, framework="pt") as file:
            there = json.loads((file.metadata() or {}).get(FINGERPRINT, "{}"))
            differing = differences(there, fingerprint)
            if differing:
                log.info("%s is replaced; it was made of: %s", path, "; ".join(differing))
                return None
            lengths = file.get_tensor(LENGTHS).tolist()
            return ListStates(
                file.get_tensor(INSTRUCTIONS), file.get_tensor(RESPONSES).split(lengths), reading
            )
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError) as error:
        log.warning("%s cannot be read (%s) and is made anew", path, error)
        return None
