"""What the devices of a step send each other, in closed form: bytes of each kind of collective.

Payloads are as torch's operators are given them: of an all-gather the whole output, of a
reduce-scatter the whole input, of an all-reduce the tensor. With n devices in a ring a device
sends (n - 1)/n of an all-gather's or a reduce-scatter's payload, and twice as much of an
all-reduce's (Patarasuk and Yuan 2009, the bandwidth-optimal ring).

FSDP2 cuts each parameter along its first dimension into n equal parts, the last ones padded, and
keeps the parts of a block together (one group), and those of all that is left: embeddings, final
norm, head (the root's group). With R forward passes of the reference (0 if it is cached):

    all-gather      (2 + R) · Σ blocks  +  R · block  +  root    all weights, frozen ones too
    reduce-scatter  Σ blocks' trained parameters                 LoRA's gradients alone

since a block's whole weights are let go after the forward pass and gathered again for the backward
pass, and the root's are kept. Where the reference runs through the same blocks, the backward pass
fetches one block ahead that it is through with: FSDP2 fetches in the order of all forward passes.
DDP sends all trained gradients in an all-reduce each step (in buckets of 25 MiB), nothing of what
is frozen, and the buffers of the first device.

Beside it the step itself (`training/across_ranks.py`): the states whose pairs are separated, and
the means of the losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from es2_lightning.training.cost.saved_tensors import FLOAT32
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape

Strategy = Literal["ddp", "fsdp"]
Part = tuple[tuple[int, ...], int, bool]
"""Of one parameter: its shape, bytes of a number, whether it trains."""
INT64, FLOAT64 = 8, 8


@dataclass(frozen=True)
class Communication:
    """One device's part in one step.

    Attributes:
        all_gather: Bytes of outputs.
        reduce_scatter: Bytes of inputs.
        all_reduce: Bytes of tensors.
        broadcast: The same.
        collectives: How many there are; DDP's own gradients counted as one.
    """

    all_gather: int = 0
    reduce_scatter: int = 0
    all_reduce: int = 0
    broadcast: int = 0
    collectives: int = 0

    def __add__(self, other: Communication) -> Communication:
        return Communication(
            self.all_gather + other.all_gather,
            self.reduce_scatter + other.reduce_scatter,
            self.all_reduce + other.all_reduce,
            self.broadcast + other.broadcast,
            self.collectives + other.collectives,
        )

    def sent(self, devices: int) -> float:
        """Bytes that each device sends around a ring of so many."""
        once = self.all_gather + self.reduce_scatter + self.broadcast
        return (once + 2 * self.all_reduce) * (devices - 1) / devices


def weight_communication(
    shape: ModelShape,
    lora: LoraShape,
    *,
    strategy: Strategy,
    devices: int,
    weight_bytes: int,
    reference_passes: int = 0,
) -> Communication:
    """Of weights and gradients, LoRA's in float32.

    Args:
        shape: Of the model.
        lora: What trains.
        strategy: Who has which weights.
        devices: That share the batch.
        weight_bytes: Of a number of the model's weights.
        reference_passes: Forward passes of the reference through the same weights.
    """
    if devices == 1:
        return Communication()
    if strategy == "ddp":
        # Rotary embeddings' frequencies, twice half a head's width, are buffers.
        return Communication(
            all_reduce=lora.parameters(shape) * FLOAT32,
            broadcast=shape.head_dim * FLOAT32,
            collectives=2,
        )
    gathers = (2 + reference_passes) * shape.num_layers + reference_passes
    block = list(_block(shape, lora, weight_bytes))
    root = padded_bytes(_root(shape, weight_bytes), devices)
    return Communication(
        all_gather=gathers * padded_bytes(block, devices) + root,
        reduce_scatter=shape.num_layers
        * padded_bytes((part for part in block if part[2]), devices),
        collectives=gathers + shape.num_layers + 1,
    )


def batch_communication(
    shape: ModelShape, *, devices: int, harmless: int, harmful: int, layers: int = 1
) -> Communication:
    """Of the loss: the states of both classes, float32, and three means; pairs are gathered.

    Args:
        shape: Of the model.
        devices: That share the batch.
        harmless: Prompts of the device that has the most.
        harmful: The same.
        layers: How many are separated at once.
    """
    if devices == 1:
        return Communication()
    states = devices * (harmless + harmful) * layers * shape.hidden_size * FLOAT32
    counts = 2 * devices * INT64
    return Communication(all_gather=states + counts, all_reduce=3 * 2 * FLOAT64, collectives=4 + 3)


def block_bytes(shape: ModelShape, lora: LoraShape, *, devices: int, weight_bytes: int) -> int:
    """Of a block's whole weights, as they are gathered."""
    return padded_bytes(_block(shape, lora, weight_bytes), devices)


def root_bytes(shape: ModelShape, *, devices: int, weight_bytes: int) -> int:
    """Of what is around the blocks: embeddings, final norm, head."""
    return padded_bytes(_root(shape, weight_bytes), devices)


def padded_bytes(parts: Iterator[Part] | list[Part], devices: int) -> int:
    """Of parameters cut into equal parts along their first dimension."""
    return sum(
        -(-size[0] // devices) * devices * prod(size[1:]) * number for size, number, _ in parts
    )


def _block(shape: ModelShape, lora: LoraShape, weight_bytes: int) -> Iterator[Part]:
    for module in shape.linears:
        yield (module.d_out, module.d_in * module.copies), weight_bytes, False
        if module.name in lora.adapted:
            yield (lora.r, module.d_in * module.copies), FLOAT32, True
            yield (module.d_out, lora.r * module.copies), FLOAT32, True
    if shape.num_experts > 1:
        yield (shape.num_experts, shape.hidden_size), weight_bytes, False
    for _ in range(2):
        yield (shape.hidden_size,), weight_bytes, False


def _root(shape: ModelShape, weight_bytes: int) -> Iterator[Part]:
    for _ in range(1 if shape.tie_word_embeddings else 2):
        yield (shape.vocab_size, shape.hidden_size), weight_bytes, False
    yield (shape.hidden_size,), weight_bytes, False
