"""One forward pass over rows of tokens: states of layers, and what leaves the final norm.

Shape legend: B rows, U outputs computed, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from es2_lightning.backbone.hidden_states import capture_hidden_states
from es2_lightning.backbone.layouts import Layout
from es2_lightning.backbone.packed_attention import running
from es2_lightning.backbone.structure import decoder_of, find_structure
from es2_lightning.backbone.truncated import truncated


@dataclass(frozen=True)
class RowStates:
    """What a pass found.

    Attributes:
        layers: Layer to (B, D), at each row's last prompt token.
        outputs: (U, D), what left the final norm; None where the layout has no outputs.
    """

    layers: dict[int, Tensor]
    outputs: Tensor | None


def run_rows(
    model: nn.Module,
    layout: Layout,
    *,
    layers: Sequence[int] = (),
    after_final_norm: bool = False,
    truncate: bool = True,
) -> RowStates:
    """Run the model's decoder; the head is not computed.

    Rows that the layout drops end at the deepest of `layers`; where nothing has outputs, so does
    the pass.

    Args:
        model: A causal LM, or a peft model around one.
        layout: On the model's device.
        layers: 1 … L, whose states are read.
        after_final_norm: Whether layer L is read after the final norm.
        truncate: Whether a pass without outputs ends at the deepest layer.
    """
    deepest = max(layers, default=0)
    assert layout.kept is None or deepest < len(find_structure(model).blocks)
    with ExitStack() as stack:
        captured = stack.enter_context(
            capture_hidden_states(model, layers, after_final_norm=after_final_norm)
        )
        if truncate and not layout.has_outputs:
            stack.enter_context(truncated(model, deepest))
        stack.enter_context(running(model, layout, dropped_after=deepest))
        final = _run_decoder(model, layout)
    states = {
        layer: captured[layer].flatten(0, 1).index_select(0, layout.last_index) for layer in layers
    }
    if not layout.has_outputs:
        return RowStates(states, None)
    return RowStates(states, final.flatten(0, 1).index_select(0, layout.output_index))


def output_states(model: nn.Module, layout: Layout, layers: Sequence[int]) -> dict[int, Tensor]:
    """The states of some layers at all output positions; nothing above the deepest is computed.

    Args:
        model: A causal LM, or a peft model around one.
        layout: On the model's device; no row of it is dropped.
        layers: 1 … L; L after the final norm, as transformers' `hidden_states[L]`.

    Returns:
        Layer to (E, D), in the order of rows and positions.
    """
    assert layout.kept is None
    deepest = max(layers)
    with (
        capture_hidden_states(model, layers, after_final_norm=True) as captured,
        truncated(model, deepest),
        running(model, layout, dropped_after=deepest),
    ):
        _run_decoder(model, layout)
    index = layout.output_index.index_select(0, layout.output_of)
    return {layer: captured[layer].flatten(0, 1).index_select(0, index) for layer in layers}


def _run_decoder(model: nn.Module, layout: Layout) -> Tensor:
    """What leaves the final norm, (B, T, D) or (1, N, D)."""
    # Padding is told by the mask; only where there is none must positions be said.
    where: dict[str, Any] = (
        {"position_ids": layout.position_ids}
        if layout.attention_mask is None
        else {"attention_mask": layout.attention_mask}
    )
    output = decoder_of(model)(input_ids=layout.input_ids, use_cache=False, **where)
    final: Tensor = output.last_hidden_state
    return final
