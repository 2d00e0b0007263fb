"""Whether a model's rows can be packed, how, and whether they may share their prefix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from es2_lightning.backbone.chat_model import eval_mode
from es2_lightning.backbone.layouts import Packing, lay_out
from es2_lightning.backbone.row_pass import run_rows
from es2_lightning.backbone.structure import causal_lm_of
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError

log = logging.getLogger(__name__)

KERNELS_FOR_PACKED_ROWS = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Those that transformers lets find the rows by their positions, and that compute no other pair."""
LAYER_KINDS = {"full_attention", "sliding_attention"}
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far packed states may be from padded ones, relative to their norm: a wrong layout is off by
its whole size."""


def choose_packing(model: nn.Module, wanted: str, rows: Sequence[TokenRow]) -> Packing:
    """The packing that a model's passes take.

    Args:
        model: A causal LM, or a peft model around one.
        wanted: `auto` or a packing. `auto` leaves it to a variable-length kernel where the model
            has one, gathers onto grids otherwise, and pads where neither is exact.
        rows: A few rows of different lengths, on which the choice is tried against padding.

    Raises:
        UserError: What was asked for is not exact for this model.
    """
    if wanted == "off":
        return "off"
    chosen: Packing = wanted  # type: ignore[assignment]
    if wanted == "auto":
        varlen = causal_lm_of(model).config._attn_implementation in KERNELS_FOR_PACKED_ROWS
        chosen = "native" if varlen else "grid"
    obstacle = _obstacle(model, chosen) or _difference(model, chosen, rows)
    if obstacle is None:
        return chosen
    if wanted != "auto":
        raise UserError(f"step.packing={wanted}: {obstacle}. Accepted: step.packing=off or auto.")
    log.info("Prompts are padded, not packed: %s", obstacle)
    return "off"


def rows_can_end(model: nn.Module, packing: Packing) -> bool:
    """Whether rows without outputs can end below the last block.

    With `native` packing and any but a variable-length kernel, transformers makes one mask for all
    blocks before the first, of all rows.
    """
    attention = causal_lm_of(model).config._attn_implementation
    return packing != "native" or attention in KERNELS_FOR_PACKED_ROWS


def has_dropout(model: nn.Module) -> bool:
    """Whether a forward pass in train mode draws random numbers."""
    if any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
        return True
    config: Any = causal_lm_of(model).config.get_text_config(decoder=True)
    return any(
        (getattr(config, name, 0) or 0) > 0
        for name in (
            *("attention_dropout", "attn_pdrop", "hidden_dropout", "dropout"),
            *("router_jitter_noise", "input_jitter_noise"),
        )
    )


def _obstacle(model: nn.Module, packing: Packing) -> str | None:
    causal_lm = causal_lm_of(model)
    name = type(causal_lm).__name__
    config = causal_lm.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ()) - LAYER_KINDS
    if kinds:
        return f"{name} has layers of kind {', '.join(sorted(kinds))}, which mix packed prompts"
    if packing in ("grid", "block_mask"):
        if (
            not getattr(causal_lm, "_supports_attention_backend", False)
            and not getattr(causal_lm, "_can_set_attn_implementation", lambda: False)()
        ):
            return f"{name} does not look its attention up in transformers' registry"
        if config._attn_implementation not in ("sdpa", "eager"):
            return (
                f"attention is {config._attn_implementation}, and grids and block masks go with "
                "model.attn_implementation=sdpa or eager"
            )
    return None


@torch.no_grad()
def _difference(model: nn.Module, packing: Packing, rows: Sequence[TokenRow]) -> str | None:
    """Try it: the same rows, packed and padded."""
    device, name = next(model.parameters()).device, type(causal_lm_of(model)).__name__
    if device.type == "meta":
        return None
    some = [
        TokenRow(row.token_ids, row.last_prompt_index, tuple(range(len(row.token_ids))))
        for row in rows
    ]
    found = []
    with eval_mode(model):
        for way in ("off", packing):
            layout = lay_out(some, packing=way, share_prefix=way in ("grid", "block_mask"))
            try:
                outputs = run_rows(model, layout.to(device)).outputs
            except Exception as error:  # Whatever a model's own code raises.
                if way == "off" or isinstance(error, torch.OutOfMemoryError):
                    raise
                why = str(error).partition("\n")[0] or type(error).__name__
                return f"{name} refuses packed prompts ({why})"
            assert outputs is not None
            found.append(outputs[layout.output_of.to(device)].float())
    plain, packed = found
    off_by = float((packed - plain).norm() / plain.norm())
    if off_by <= ROUNDING[next(model.parameters()).dtype]:
        return None
    return f"{name} gives packed prompts other hidden states (off by {off_by:.0%})"
