"""What a training step takes of a device's memory, in closed form.

Bytes that tensors hold, as `count_bytes` counts them; what kernels and allocators take beside comes
on top. On a GPU leave 10 % for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.backbone.head_products import (
    ADDS_BF16_IN_FLOAT32,
    BLOCK_ENTRIES,
    CAST_ENTRIES,
    OTHER_BLOCK_ENTRIES,
    chunks,
)
from es2_lightning.training.cost.saved_tensors import FLOAT32, Precision, saved_bytes
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_flops import block_works, output_positions
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan

QUANTIZED = 0.53
"""Bytes of a weight in 4 bits, its scales included (nf4, double quantization)."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes.

    Gradients count as standing, as they do where a step accumulates batches. Where all weights
    train on one batch a step, they come as activations go, and the sum is some 15 % too high.

    Attributes:
        weights: Of the model.
        reference: Of a second copy of it.
        adapter: What LoRA adds.
        gradients: Of what trains.
        optimizer: AdamW's two moments.
        activations: What is kept for the backward pass, at its most.
        transient: The most that comes and goes beside it: the head and the KL of a chunk, the
            reference's pass, or a block's gradients.
        host_cache: Of a reference cache, in the host's memory or on disk.
    """

    weights: int
    reference: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    transient: int
    host_cache: int

    @property
    def step(self) -> int:
        """What comes and goes with each step, gradients left out."""
        return self.activations + self.transient

    @property
    def device(self) -> int:
        """All that the device must hold at once."""
        standing = self.weights + self.reference + self.adapter
        return standing + self.gradients + self.optimizer + self.step


def estimate_memory(
    shape: ModelShape,
    rows: Sequence[RowShape],
    plan: StepPlan,
    lora: LoraShape | None,
    *,
    precision: Precision,
    quantized: bool = False,
    cached_positions: int = 0,
) -> MemoryEstimate:
    """Of one device, without sharding.

    Args:
        shape: Of the model.
        rows: A batch, better one of long prompts.
        plan: How the step is computed.
        lora: What trains, in float32; None: all weights, in the model's own dtype.
        precision: How large numbers are.
        quantized: Whether the blocks' matrices are in 4 bits.
        cached_positions: Of all harmless prompts together, where the reference is cached.
    """
    size = precision.weight
    weights = shape.parameters * size
    if quantized:
        matrices = sum(m.d_in * m.d_out * m.copies for m in shape.linears) * shape.num_layers
        weights -= int(matrices * (size - QUANTIZED))
    trained = shape.parameters * size if lora is None else lora.parameters(shape) * FLOAT32
    activations, transient = _step(shape, rows, plan, lora, precision)
    # AdamW on many tensors at once makes a copy of what it updates; the activations are gone then.
    transient = max(transient, trained - activations)
    return MemoryEstimate(
        weights=weights,
        reference=weights if plan.reference == "copy" else 0,
        adapter=0 if lora is None else trained,
        gradients=trained,
        optimizer=2 * trained,
        activations=activations,
        transient=transient,
        host_cache=cached_positions * _held_of_a_position(shape, plan, precision),
    )


def _step(
    shape: ModelShape,
    rows: Sequence[RowShape],
    plan: StepPlan,
    lora: LoraShape | None,
    precision: Precision,
) -> tuple[int, int]:
    """What is kept and what comes and goes, at the moment when both together are the most."""
    parts = plan.parts(rows)
    held = sum(_held_of_pass(shape, part, plan, precision) for part in parts)
    harmless = sum(row.outputs > 0 for row in rows)
    held += FLOAT32 * shape.hidden_size * harmless * (len(rows) - harmless)  # All differences.
    moments = []
    for part in parts:
        works = block_works(part, plan, depth=shape.num_layers)
        saved = saved_bytes(shape, works, plan, lora, precision)
        size = precision.activation
        tokens = works[-1].tokens
        # Of the top block: gradients of what its MLP kept, which are as large.
        inner = shape.intermediate_size * shape.linears[-1].active
        backward = tokens * 3 * inner * size
        head = _head(shape, output_positions(part, plan), plan, lora, precision)
        if plan.reference != "cached":
            compared = [row for row in part if row.outputs]
            passed = sum(row.tokens for row in compared)
            head = max(head, passed * (3 * inner * size + 4 * shape.hidden_size * FLOAT32))
        rope = 2 * works[0].tokens * shape.head_dim * size
        above = rope + tokens * (shape.hidden_size + 1) * FLOAT32  # The final norm's.
        if plan.checkpointing:
            entered = sum(work.tokens for work in works) * shape.hidden_size
            kept = entered * precision.weight + above
            before = held if len(parts) > 1 else held + kept
            moments += [(held + kept, max(saved) + backward), (before, head)]
        elif len(parts) > 1:
            # The forward pass keeps nothing; each pass is computed again when its turn comes.
            moments += [(held + sum(saved) + above, backward), (held, head)]
        else:
            moments.append((held + sum(saved) + above, max(backward, head)))
    return max(moments, key=sum)


def _held_of_pass(
    shape: ModelShape, rows: Sequence[RowShape], plan: StepPlan, precision: Precision
) -> int:
    """Final hidden states where the KL is taken, and their gradient."""
    size = precision.activation + (0 if plan.kl_chunk is None else FLOAT32)
    return output_positions(rows, plan) * shape.hidden_size * size


def _head(
    shape: ModelShape,
    positions: int,
    plan: StepPlan,
    lora: LoraShape | None,
    precision: Precision,
) -> int:
    """Of the KL at so many positions: logits of a chunk, and what is made of them, in float32."""
    if not positions:
        return 0
    chunk = _largest(positions, plan.kl_chunk)
    logits = chunk * shape.vocab_size * FLOAT32
    states = positions * shape.hidden_size * precision.activation * 2
    weight = shape.head_parameters
    if lora is None or plan.kl_chunk is None:
        # Differentiated by autograd: logits, log-probabilities and probabilities of both models.
        cast = 0 if precision.weight == FLOAT32 else weight * FLOAT32
        return 7 * logits + cast + states
    # A slice of the weight at a time is cast to float32, two of them at once.
    casts = precision.weight < FLOAT32 and precision.device not in ADDS_BF16_IN_FLOAT32
    cast = casts * FLOAT32 * min(weight, 2 * CAST_ENTRIES)
    if plan.needs_reference_logits:
        entries = BLOCK_ENTRIES.get(precision.device, OTHER_BLOCK_ENTRIES)
        block = _largest(chunk, max(1, entries // shape.vocab_size))
        temporaries = 5 * block * shape.vocab_size * FLOAT32
        return 2 * logits + max(temporaries, cast) + states
    return logits + cast + 2 * states


def _largest(positions: int, size: int | None) -> int:
    return max(s.stop - s.start for s in chunks(positions, size))


def _held_of_a_position(shape: ModelShape, plan: StepPlan, precision: Precision) -> int:
    if plan.reference != "cached":
        return 0
    if plan.hold == "statistics":
        return (shape.hidden_size + 2) * FLOAT32
    return shape.hidden_size * precision.activation
