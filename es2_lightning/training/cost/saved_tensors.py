"""Bytes that autograd keeps of a block for its backward pass, in closed form.

As transformers writes a Llama block and peft an adapter: norms compute in float32, and so do the
adapters of a model in another dtype, each on a copy of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.training.cost.closed_form import BlockWork
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape, StepPlan

FLOAT32 = 4


@dataclass(frozen=True)
class Precision:
    """How large numbers are, and where.

    Attributes:
        weight: Bytes of a number of the model's weights.
        activation: Bytes of one in its linear modules; less than in weights under autocast.
        device: The type of the device, such as `cuda`.
    """

    weight: int = 4
    activation: int = 4
    device: str = "cpu"

    @property
    def autocast(self) -> bool:
        """Whether weights are cast where they are used."""
        return self.weight != self.activation

    @property
    def dropout_mask(self) -> int:
        """Bytes that dropout keeps of each number."""
        return 1 if self.device == "cuda" else FLOAT32


def saved_bytes(
    shape: ModelShape,
    works: Sequence[BlockWork],
    plan: StepPlan,
    lora: LoraShape | None,
    precision: Precision,
) -> list[int]:
    """Of each block, from the first to the last.

    Args:
        shape: Of the model.
        works: What each block is given.
        plan: How prompts lie in a pass.
        lora: What trains; None: all weights.
        precision: How large numbers are.
    """
    kept = []
    wanted = lora is None  # A gradient of what enters the block.
    for work in works:
        block, wanted = _block(shape, work, plan, lora, precision, wanted)
        kept.append(block)
    return kept


def _block(
    shape: ModelShape,
    work: BlockWork,
    plan: StepPlan,
    lora: LoraShape | None,
    precision: Precision,
    wanted: bool,
) -> tuple[int, bool]:
    names = [m.name for m in shape.linears]
    adapted = frozenset(names) if lora is None else lora.adapted
    size = precision.activation
    projections = {"q_proj", "k_proj", "v_proj"} & adapted
    into = {"gate_proj", "up_proj"} & adapted
    norm = FLOAT32 * (shape.hidden_size + 1)
    if lora is None:
        norm += size * shape.hidden_size  # What its own weight is multiplied with.
    if plan.lean_norms:
        norm = precision.weight * shape.hidden_size  # Its input alone.
    per_token = wanted * norm + _inputs(shape, projections, lora, precision)
    of_attention = wanted or bool(projections)
    # A bool mask makes transformers repeat keys and values for all heads.
    repeated = plan.layout in ("off", "block_mask") or plan.prefix > 0
    heads = shape.num_attention_heads
    key_heads = heads if repeated else shape.num_key_value_heads
    attention = of_attention * (
        work.queries * heads * (2 * shape.head_dim * size + FLOAT32)
        + work.keys * key_heads * 2 * shape.head_dim * size
        # The mask of each block, one number for each pair.
        + (work.pairs * size if plan.layout in ("off", "block_mask") else 0)
    )
    in_place = plan.layout == "off" and size == FLOAT32 and not (lora and lora.dropout)
    per_token += 0 if in_place else _inputs(shape, {"o_proj"} & adapted, lora, precision)
    between = of_attention or "o_proj" in adapted
    per_token += between * norm + _inputs(shape, into, lora, precision)
    inner = between or bool(into)
    # Of a gated MLP: the gate before and after its activation, and what it is multiplied with.
    active = shape.linears[-1].active
    per_token += inner * (3 if shape.gated_mlp else 1) * active * shape.intermediate_size * size
    per_token += _inputs(shape, {"down_proj"} & adapted, lora, precision)
    # What autocast makes of frozen weights is made anew in each pass, and kept for the way back.
    matrices = sum(m.d_in * m.d_out * m.copies for m in shape.linears)
    cast = of_attention * matrices * size if precision.autocast else 0
    return work.tokens * per_token + attention + cast, inner or "down_proj" in adapted


def _inputs(
    shape: ModelShape, adapted: set[str] | frozenset[str], lora: LoraShape | None, p: Precision
) -> int:
    """Of a token: what modules with a common input keep of it."""
    modules = [m for m in shape.linears if m.name in adapted]
    if not modules:
        return 0
    width = modules[0].d_in * modules[0].active
    if lora is None:
        return width * p.activation
    # float32 needs no cast, and without dropout all adapters read the same.
    own_copies = len(modules) if lora.dropout or p.activation != FLOAT32 else 1
    size = p.activation if p.autocast else FLOAT32
    dropped = len(modules) * width * p.dropout_mask if lora.dropout else 0
    low_rank = len(modules) * modules[0].active * lora.r * FLOAT32
    return own_copies * width * size + dropped + low_rank
