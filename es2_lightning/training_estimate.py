"""What a run will take, told before any weights load: from its config and its prompts' lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from es2_lightning.backbone.layouts import shared_prefix_length
from es2_lightning.backbone.loading import read_config, read_depth
from es2_lightning.training.cost.machine import free_bytes, product_rate
from es2_lightning.training.cost.run_estimate import Remedy, RunEstimate, RunPlan
from es2_lightning.training.cost.saved_tensors import Precision
from es2_lightning.training.cost.shapes import ModelShape, shape_of
from es2_lightning.training.cost.step_plan import Layout, LoraShape, RowShape, StepPlan
from es2_lightning.training.layer_sets import select_layers, with_terminal
from es2_lightning.training.refusals import MAX_NEW_TOKENS
from es2_lightning.training.schedule import make_stages

if TYPE_CHECKING:
    from es2_lightning.backbone.token_rows import TokenRow
    from es2_lightning.config.train_schema import TrainConfig
    from es2_lightning.training.datamodule import PromptDataModule

BATCHES = 10
"""How many batches' lengths are looked at."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
HALVES = 6
"""How often a size is halved until it fits."""


def estimate_run(
    config: TrainConfig,
    datamodule: PromptDataModule,
    device: torch.device,
    *,
    already_there: int = 0,
) -> RunEstimate:
    """Count what the run takes, and measure what the device has to offer.

    Args:
        config: The whole config.
        datamodule: Connected to the tokenizer.
        device: Where it will train.
        already_there: Bytes of its weights that the device holds already.
    """
    shape = shape_of(read_config(config.model))
    plan, assumptions = _plan(config, datamodule, shape, device.type)
    half = plan.precision.activation == 2
    tokens = sum(row.tokens for row in plan.batches[0])
    free = free_bytes(device)
    estimate = RunEstimate(
        plan=plan,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        rate=product_rate(
            device,
            torch.bfloat16 if half else torch.float32,
            tokens=tokens,
            d_in=shape.hidden_size,
            d_out=shape.intermediate_size,
        ),
        free=None if free is None else free + already_there,
        host_free=free_bytes(torch.device("cpu")),
        assumptions=tuple(assumptions),
    )
    if not estimate.device_is_short:
        return estimate
    assert estimate.free is not None
    now, enough = plan.device_bytes, estimate.free
    found = [Remedy(words, p.device_bytes) for words, p in _remedies(config, plan, enough)]
    found = [remedy for remedy in found if remedy.device_bytes < now]
    # What suffices alone comes first.
    return replace(estimate, remedies=tuple(sorted(found, key=lambda r: r.device_bytes > enough)))


def _plan(
    config: TrainConfig, datamodule: PromptDataModule, shape: ModelShape, device: str
) -> tuple[RunPlan, list[str]]:
    assumptions = []
    model, data = config.model, config.data
    depth = read_depth(model)
    layers = select_layers(config.layers, depth)
    if layers is None:
        layers = with_terminal(max(1, depth // 3), depth)
        assumptions.append(f"the emergence layer, which probes will find, is {layers[0]}")
    loader = datamodule.train_dataloader()
    accumulate = config.trainer.get("accumulate_grad_batches", 1)
    steps_per_epoch = math.ceil(len(loader) / accumulate)
    stages = [
        (max(stage.layers), math.ceil(stage.budget(steps_per_epoch)))
        for stage in make_stages(config.schedule, layers)
    ]
    refusal = MAX_NEW_TOKENS if config.loss.harmful_kl_weight > 0 else 0
    if refusal:
        assumptions.append(f"each refusal whose KL is taken has {refusal} tokens")
    number = min(BATCHES, accumulate * sum(steps for _, steps in stages))
    rows, batches = _batches(datamodule, number, depth=depth, refusal=refusal)
    lora = None if model.mode == "full" else _lora(config, shape)
    step = StepPlan(
        truncate=config.step.truncate,
        layout=_layout(config),
        prefix=_prefix(config, rows),
        reference=model.reference,  # type: ignore[arg-type]
        hold=model.reference_cache.hold,  # type: ignore[arg-type]
        kl_chunk=config.step.kl_chunk,
        micro_batch=config.step.micro_batch,
        checkpointing=model.gradient_checkpointing,
        lean_norms=config.step.lean_norms,
    )
    steps = accumulate * sum(steps for _, steps in stages)
    train, validation = datamodule.splits.train, datamodule.splits.validation
    met = min(len(train.harmless), steps * min(data.harmless_per_batch, len(train.harmless)))
    if refusal:
        met += min(len(train.harmful), steps * min(data.harmful_per_batch, len(train.harmful)))
    plan = RunPlan(
        shape=shape,
        step=step,
        lora=lora,
        precision=_precision(config, device),
        batches=batches,
        harmless=min(data.harmless_per_batch, len(train.harmless)),
        stages=stages,
        compared_rows=met + len(validation.harmless),
        accumulate=accumulate,
        quantized=model.mode == "qlora",
        cache_on_disk=model.reference_cache.folder is not None,
    )
    return plan, assumptions


def _batches(
    datamodule: PromptDataModule, number: int, *, depth: int, refusal: int
) -> tuple[list[TokenRow], list[list[RowShape]]]:
    """The first batches: the rows of one, and the shapes of all."""
    loader = datamodule.train_dataloader()
    train = datamodule.splits.train
    all_harmless, all_harmful = train.harmless, train.harmful
    shapes: list[list[RowShape]] = []
    rows: list[TokenRow] = []
    for batch in range(number):
        harmless, harmful = loader.indices(batch)
        made = datamodule.collate(
            [all_harmless[i] for i in harmless], [all_harmful[i] for i in harmful]
        )
        rows = rows or list(made.rows)
        shapes.append(
            [
                RowShape(len(row.token_ids), depth, len(row.output_positions))
                if not is_harmful or not refusal
                else RowShape(len(row.token_ids) + refusal, depth, refusal)
                for row, is_harmful in zip(made.rows, made.harmful, strict=True)
            ]
        )
    return rows, shapes


def _lora(config: TrainConfig, shape: ModelShape) -> LoraShape:
    lora = config.model.lora
    return LoraShape(lora.r, shape.adapted(lora.target_modules), dropout=lora.lora_dropout > 0)


def _layout(config: TrainConfig) -> Layout:
    """What `step.packing` most likely comes to; what is exact is tried on the model itself."""
    packing = config.step.packing
    if packing == "auto":
        flash = (config.model.attn_implementation or "").startswith("flash_attention")
        return "exact" if flash else "grid"
    return "exact" if packing == "native" else packing  # type: ignore[return-value]


def _prefix(config: TrainConfig, rows: list[TokenRow]) -> int:
    shared = config.step.shared_prefix
    dropout = config.model.mode != "full" and config.model.lora.lora_dropout > 0
    if shared == "never" or (shared == "auto" and dropout):
        return 0
    return shared_prefix_length(rows) if _layout(config) in ("grid", "block_mask") else 0


def _precision(config: TrainConfig, device: str) -> Precision:
    trainer = str(config.trainer.get("precision", "32-true"))
    weight = BYTES[config.model.dtype]
    if trainer in ("bf16-true", "16-true"):
        weight = 2
    activation = 2 if "mixed" in trainer else weight
    return Precision(weight=weight, activation=activation, device=device)


def _remedies(config: TrainConfig, plan: RunPlan, free: int) -> Iterator[tuple[str, RunPlan]]:
    """What could be lowered, each alone."""
    step, prompts = plan.step, max(len(batch) for batch in plan.batches)

    def fitting(change: Callable[[int], RunPlan], size: int) -> tuple[int, RunPlan]:
        for _ in range(HALVES):
            size = max(1, size // 2)
            if (changed := change(size)).device_bytes <= free:
                break
        return size, changed

    if (now := step.micro_batch or prompts) > 1:
        size, changed = fitting(
            lambda n: replace(plan, step=replace(step, micro_batch=n)), min(now, prompts)
        )
        yield f"step.micro_batch={size}", changed
    if not step.checkpointing:
        on = replace(plan, step=replace(step, checkpointing=True))
        yield "model.gradient_checkpointing=true", on
    if config.model.dtype == "float32" and config.model.mode != "full":
        activation = min(2, plan.precision.activation)
        halved = replace(plan.precision, weight=2, activation=activation)
        yield "model.dtype=bfloat16", replace(plan, precision=halved)
    if plan.lora is None:
        adapted = _lora(config, plan.shape)
        alone = adapted.dropout and config.step.shared_prefix == "auto"
        cached = replace(step, reference="cached", prefix=0 if alone else step.prefix)
        yield (
            "model.mode=lora model.reference=cached",
            replace(plan, lora=adapted, step=cached),
        )
    elif step.reference == "copy":
        yield "model.reference=cached", replace(plan, step=replace(step, reference="cached"))
    if step.kl_chunk is None or step.kl_chunk > 64:
        yield "step.kl_chunk=64", replace(plan, step=replace(step, kl_chunk=64))
    yield from _smaller_batches(plan, fitting)
    if plan.precision.device == "cpu" and step.reference == "cached" and not plan.cache_on_disk:
        yield "model.reference_cache.folder=<a folder>", replace(plan, cache_on_disk=True)


def _smaller_batches(plan: RunPlan, fitting: Any) -> Iterator[Any]:
    def per_batch(size: int) -> RunPlan:
        batches = [[*batch[:size], *batch[plan.harmless :]] for batch in plan.batches]
        return replace(plan, batches=batches, harmless=size)

    size, changed = fitting(per_batch, plan.harmless)
    yield f"data.harmless_per_batch={size}", changed
    longest = max(row.tokens for batch in plan.batches for row in batch)

    def no_longer(tokens: int) -> RunPlan:
        batches = [
            [replace(r, tokens=min(r.tokens, tokens), outputs=min(r.outputs, tokens)) for r in b]
            for b in plan.batches
        ]
        return replace(plan, batches=batches)

    tokens, changed = fitting(no_longer, longest)
    if tokens >= 8:
        yield f"model.max_length={tokens}", changed
