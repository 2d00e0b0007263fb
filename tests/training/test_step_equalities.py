"""Every way to compute a step against the plain step: one loss, one gradient.

The plain step is written with transformers alone: padded rows, all hidden states, all logits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.reference import Reference, make_reference
from es2_lightning.backbone.reference_cache import make_cached_reference
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.objectives.kl import KLPositions
from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.datamodule import PromptDataModule
from es2_lightning.training.objective import ES2Objective
from es2_lightning.training.settings import LossSettings, StepSettings

from ..tiny_models import Architecture, tiny_chat_model, tiny_splits

LOSS = LossSettings(separation_weight=2.0, kl_weight=0.8, harmful_kl_weight=0.6)
LAYERS = (1, 3)
REFERENCES = ("adapter", "copy", "cached hidden_states", "cached statistics")
TOLERANCE = 1e-6
BETWEEN = 2e-7
"""In float64; several parts of transformers (norms, rotary embeddings) compute in float32 all the
same, and packed rows differ from padded ones in what they round there."""


@dataclass(frozen=True)
class Case:
    """A tiny tuned model, its batch, and what the plain step makes of it."""

    chat_model: ChatModel
    base: ChatModel
    batch: PairedBatch
    units: dict[int, float]
    references: dict[tuple[str, str], Reference] = field(default_factory=dict)


def tiny_case(architecture: Architecture, dtype: torch.dtype, positions: KLPositions) -> Case:
    """LoRA everywhere, moved away from its start; refusals for some harmful prompts."""
    # Shallow, so that float32's rounding stays below the tolerance.
    base, tuned = (
        tiny_chat_model(architecture, num_hidden_layers=3, initializer_range=0.15) for _ in range(2)
    )
    base.model.to(dtype)
    torch.manual_seed(0)
    tuned.model = add_lora(tuned.model.to(dtype), r=4, lora_dropout=0.0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in tuned.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator).to(dtype)
    splits = tiny_splits()
    data = PromptDataModule(
        splits, harmless_per_batch=5, harmful_per_batch=4, use_responses=True, seed=0
    )
    data.connect(tuned.renderer, kl_positions=positions)
    harmful = splits.train.harmful[:4]
    data.use_refusals({harmful[1]: "w7 w8 w9", harmful[3]: "w3"})
    batch = data.collate(splits.train.harmless[:5], harmful)
    return Case(tuned, base, batch, {layer: 2.0 + layer for layer in LAYERS})


def plain_step(case: Case, layers: Sequence[int], *, after_norm: bool) -> tuple[Tensor, Tensor]:
    """Loss and KL from `output_hidden_states` and whole logits, on one padded batch."""
    rows, harmful = case.batch.rows, torch.tensor(case.batch.harmful)
    longest = max(len(row.token_ids) for row in rows)
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.token_ids)] = torch.tensor(row.token_ids)
        mask[i, : len(row.token_ids)] = 1
    causal_lm = case.chat_model.model.get_base_model()
    before_norm: list[Tensor] = []
    handle = causal_lm.model.norm.register_forward_pre_hook(
        lambda _, args: before_norm.append(args[0])
    )
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    tuned = case.chat_model.model(**inputs, output_hidden_states=True)
    handle.remove()
    with torch.no_grad():
        base = case.base.model(**inputs).logits
    per_token = F.kl_div(
        tuned.logits.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    kls = [
        per_token[i, list(row.output_positions)].mean() if row.output_positions else None
        for i, row in enumerate(rows)
    ]
    kl = torch.stack([k for k, bad in zip(kls, harmful, strict=True) if not bad]).mean()  # type: ignore[misc]
    refused = [k for k, bad in zip(kls, harmful, strict=True) if bad and k is not None]
    states = [*tuned.hidden_states[:-1], tuned.hidden_states[-1] if after_norm else before_norm[0]]
    distances = []
    for layer in layers:
        last = torch.stack([states[layer][i, row.last_prompt_index] for i, row in enumerate(rows)])
        pairs = (last[harmful][:, None] - last[~harmful][None]).norm(dim=-1)
        distances.append(pairs.mean() / case.units[layer])
    loss = (
        -LOSS.separation_weight * torch.stack(distances).mean()
        + LOSS.kl_weight * kl
        + LOSS.harmful_kl_weight * torch.stack(refused).mean()
    )
    return loss, kl


def gradients(case: Case, loss: Tensor) -> Tensor:
    """Of all LoRA tensors, one vector."""
    trained = [p for p in case.chat_model.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten().double()
            for p, g in zip(trained, found, strict=True)
        ]
    )


def all_ways() -> Iterator[tuple[str, StepSettings, Packing]]:
    """Reference × truncation × chunking × packing × prefix × micro-batches."""
    packings: tuple[Packing, ...] = ("off", "grid", "block_mask")
    for reference, truncate, chunk, packing, prefix, micro in itertools.product(
        REFERENCES,
        (False, True),
        (None, 7),
        packings,
        ("never", "auto"),
        (None, 4),
    ):
        if prefix == "auto" and packing == "off":
            continue  # the same as never
        step = StepSettings(
            truncate=truncate, kl_chunk=chunk, shared_prefix=prefix, micro_batch=micro
        )
        yield reference, step, packing


def some_ways(thorough: bool) -> list[tuple[str, StepSettings, Packing]]:
    return list(all_ways())[:: 1 if thorough else 7]


def reference_of(case: Case, kind: str, packing: Packing) -> Reference:
    """One of each kind and packing serves all ways."""
    if (kind, packing) not in case.references:
        if kind.startswith("cached"):
            settings = ModelSettings("", reference="cached")
            settings.reference_cache.hold = kind.removeprefix("cached ")
            made: Reference = make_cached_reference(
                case.chat_model, settings, packing=packing, precision="32-true"
            )
        else:
            made = make_reference(kind, case.chat_model, packing=packing)
        case.references[kind, packing] = made
    return case.references[kind, packing]


def objective_of(
    case: Case, reference: str, step: StepSettings, packing: Packing, *, after_norm: bool
) -> ES2Objective:
    objective = ES2Objective(
        case.chat_model.model,
        reference_of(case, reference, packing),
        layers=LAYERS,
        settings=LOSS,
        step=step,
        packing=packing,
        after_final_norm=after_norm,
    )
    objective.base_norms = dict(case.units)
    return objective


def worst(
    case: Case,
    plain: Case,
    ways: Sequence[tuple[str, StepSettings, Packing]],
    *,
    separated: Sequence[int],
    after_norm: bool,
    tolerance: float,
) -> dict[str, float]:
    """The ways whose loss or gradient is further from the plain step's than the tolerance.

    Args:
        case: What the ways compute on.
        plain: What the plain step computes on: the same in float64, so that what is measured is
            the ways' own rounding.
        ways: Those that are tried.
        separated: The stage's layers.
        after_norm: Whether layer L is read after the final norm.
        tolerance: Relative.
    """
    plain_loss, plain_kl = plain_step(plain, separated, after_norm=after_norm)
    wanted = gradients(plain, plain_loss)
    assert float(wanted.norm()) > 1e-3 and float(plain_kl.detach()) > 1e-3
    off: dict[str, float] = {}
    for reference, step, packing in ways:
        objective = objective_of(case, reference, step, packing, after_norm=after_norm)
        losses = objective(case.batch, separated)
        found = gradients(case, losses.loss)
        error = max(
            abs(float(losses.loss.detach()) / float(plain_loss.detach()) - 1),
            abs(float(losses.kl.detach()) / float(plain_kl.detach()) - 1),
            float((found - wanted).norm() / wanted.norm()),
        )
        if not error <= tolerance:
            off[f"{reference} {packing} {step}"] = error
    return off


ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "gemma3_text")


THOROUGH = [False, pytest.param(True, marks=pytest.mark.slow)]
"""All ways, or every seventh, which still has each value of each choice."""


@pytest.mark.parametrize("thorough", THOROUGH)
@pytest.mark.parametrize("after_norm", [False, True])
@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_way_gives_the_plain_step(
    architecture: Architecture, positions: KLPositions, after_norm: bool, thorough: bool
) -> None:
    case, plain = (
        tiny_case(architecture, dtype, positions) for dtype in (torch.float32, torch.float64)
    )
    for ours, theirs in ((case.chat_model, plain.chat_model), (case.base, plain.base)):
        theirs.model.load_state_dict(ours.model.state_dict())
    separated = [3] if after_norm else [1]
    off = worst(
        case,
        plain,
        some_ways(thorough),
        separated=separated,
        after_norm=after_norm,
        tolerance=TOLERANCE,
    )
    assert off == {}


@pytest.mark.parametrize("thorough", THOROUGH)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_float64_nothing_but_rounding_is_left(
    architecture: Architecture, thorough: bool
) -> None:
    case = tiny_case(architecture, torch.float64, "response")
    chosen = some_ways(thorough)
    for separated in ([1], [1, 3]):
        off = worst(case, case, chosen, separated=separated, after_norm=False, tolerance=BETWEEN)
        assert off == {}


def test_soft_capped_attention_and_logits() -> None:
    """Gemma 2, in float32 throughout: padded, its eager attention gives NaN in float64."""
    case = tiny_case("gemma2", torch.float32, "response")
    # Statistics are of a linear head only.
    chosen = [way for way in some_ways(False) if way[0] != "cached statistics"]
    off = worst(case, case, chosen, separated=[1], after_norm=False, tolerance=5e-6)
    assert off == {}


def test_the_ways_are_all_combinations() -> None:
    seen = some_ways(True)
    assert len(seen) == len(REFERENCES) * 2 * 2 * 5 * 2
    assert len({str(way) for way in seen}) == len(seen)
    few = some_ways(False)
    assert {way[0] for way in few} == set(REFERENCES)
    assert {way[2] for way in few} == {"off", "grid", "block_mask"}
    for name in ("truncate", "kl_chunk", "shared_prefix", "micro_batch"):
        assert len({getattr(way[1], name) for way in few}) == 2
