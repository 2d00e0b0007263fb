"""What a user sets about training; light to import, so that config errors answer at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from es2_lightning.ranges import Accepts, accepts, at_least, between, one_of


def _one_or_a_list(number: str, *types: Any) -> Mapping[str, Accepts]:
    """Positive numbers: one for all stages, or a list with one for each."""

    def test(value: Any) -> bool:
        values = value if isinstance(value, (list, tuple)) else [value]
        return bool(values) and all(
            isinstance(v, types) and not isinstance(v, bool) and v > 0 for v in values
        )

    return accepts(f"{number} > 0, or a list of them, one for each stage", test)


GIVEN_TO_METHODS = (
    "chat_model",
    "reference",
    "layers",
    "loss",
    "schedule",
    "optimizer",
    "terminal_state",
    "step",
    "packing",
    "identity",
)
"""What a run hands to its method, if that takes it: all other words are `method.<word>`."""


@dataclass
class LossSettings:
    """L = separation_weight · L_dist + kl_weight · L_KL + harmful_kl_weight · L_KL_harmful."""

    kl_weight: float = field(default=1.0, metadata=at_least(0))
    """λ, the weight of KL(base ‖ tuned) on harmless prompts. The paper does not state its value."""
    separation_weight: float = field(default=1.0, metadata=at_least(0))
    """Scales L_dist, so that kl_weight between 0.1 and 1 spans the interesting range."""
    distance_unit: str = field(default="base_norm", metadata=one_of("base_norm", "raw"))
    """`base_norm`: distances divided by the base model's mean state norm at that layer, measured
    once, so that the weights mean the same for any model and width. `raw`: as in the paper."""
    kl_positions: str = field(default="all", metadata=one_of("all", "last", "response"))
    """Where the KL is taken (the paper does not say): every token, the prompt's last token, or the
    positions that predict the response."""
    kl_check: str = field(default="training", metadata=one_of("training", "no_dropout"))
    """The KL that is compared with the threshold: the training one, or recomputed without
    dropout."""
    gather_pairs: bool = True
    """On several devices: separate all harmful from all harmless prompts of the batch, whichever
    device they are on, so that the loss does not depend on how many there are. false: each device
    separates its own."""
    harmful_kl_weight: float = field(default=0.0, metadata=at_least(0))
    """Weight of the KL on harmful prompts with the reference's own refusals. Not in the paper,
    whose loss alone destroys clean refusals; 0 switches it off."""


@dataclass
class ScheduleSettings:
    """Algorithm 1: stages over the layer set. An epoch is one pass over the harmful prompts."""

    order: str = field(default="sequential", metadata=one_of("sequential", "joint"))
    """One stage for each layer, shallow first, or one stage for all layers at once."""
    kl_threshold: Any = field(
        default=0.1,
        metadata=_one_or_a_list("a number", int, float),
    )
    """τ, nats. A stage ends before the update at which the step's mean KL exceeds it. One number
    serves every stage; with one number a later stage starts near it, so rising ones are better."""
    max_epochs: Any = field(default=None, metadata=_one_or_a_list("a number", int, float))
    """Budget of each stage: one number for every stage, or a list."""
    max_steps: Any = field(default=None, metadata=_one_or_a_list("a whole number", int))
    """Budget of each stage in optimizer steps: one number for every stage, or a list. Where both
    budgets are given, the smaller one counts."""
    patience: int | None = field(default=None, metadata=at_least(1))
    """A stage has converged when its loss, averaged over an epoch, improved by less than
    min_improvement for so many epochs; null: only the budget and the threshold end it."""
    min_improvement: float = field(default=0.001, metadata=at_least(0))
    """Relative."""


@dataclass
class LayerSettings:
    """The layer set. Layer l is the output of block l, 1 … L; -1 is L."""

    select: str = field(
        default="emergence_terminal",
        metadata=one_of("emergence_terminal", "list", "single", "all", "every_nth", "depths"),
    )
    indices: list[int] = field(default_factory=list)
    """For `list`."""
    index: int = -1
    """For `single`."""
    n: int = field(default=4, metadata=at_least(1))
    """For `every_nth`: layers n, 2n, … and L."""
    depths: list[float] = field(default_factory=list)
    """For `depths`: shares of the depth L, each above 0 and at most 1."""
    emergence: int | None = None
    """For `emergence_terminal`: the emergence layer, where it is known; null: found by probes."""
    threshold: float = field(default=0.90, metadata=between(0.5, 1))
    """For `emergence_terminal`: the probe accuracy that the emergence layer must exceed."""
    terminal_state: str = field(default="pre_norm", metadata=one_of("pre_norm", "post_norm"))
    """Whether layer L is read before or after the final norm. The paper does not say; it calls the
    distance unbounded, which is true before the norm."""


@dataclass
class StepSettings:
    """How a training step is computed. Every choice gives the same losses and gradients."""

    truncate: bool = True
    """Compute nothing of a harmful prompt above the deepest layer that is separated, unless it has
    a refusal whose KL is taken."""
    kl_chunk: int | None = field(default=256, metadata=at_least(1))
    """Positions that pass through the head at a time, in float32; null: all at once, as logits."""
    packing: str = field(
        default="auto", metadata=one_of("auto", "off", "grid", "block_mask", "native")
    )
    """`off`: prompts padded to the longest. Otherwise no padding is computed; attention is gathered
    onto a (prompt, longest) grid, or masked by blocks, or left to the kernel that
    model.attn_implementation names (flash_attention_2, flex_attention), which finds the prompts by
    their positions. `auto`: what is exact for the model and cheapest."""
    shared_prefix: str = field(default="auto", metadata=one_of("auto", "always", "never"))
    """Compute the tokens that all prompts of a batch begin with only once; needs packing. `auto`:
    unless LoRA dropout is on, since all prompts would share its mask there."""
    micro_batch: int | None = field(default=None, metadata=at_least(1))
    """The most prompts in one pass; null: the whole batch. For memory; recomputes all but the
    head."""
    lean_norms: bool = False
    """Recompute the norms in the backward pass instead of keeping their float32 copies of what
    they saw; with weights in bfloat16 that saves memory."""
    compile: bool = False
    """torch.compile on each block."""
