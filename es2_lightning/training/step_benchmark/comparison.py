"""From what was set of the benchmark to its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.reference import AdapterReference
from es2_lightning.errors import UserError
from es2_lightning.training.cost.flops import count_flops
from es2_lightning.training.step_benchmark.floors import Floors
from es2_lightning.training.step_benchmark.lengths import (
    TEMPLATE_PREFIX,
    BatchLengths,
    built_in_lengths,
    lengths_of_prompts,
    random_batch,
)
from es2_lightning.training.step_benchmark.measuring import count, run, seconds_of, time_ways
from es2_lightning.training.step_benchmark.peak_flops import peak_flops_of
from es2_lightning.training.step_benchmark.results import CacheBuild, Measured, StepResult
from es2_lightning.training.step_benchmark.subject import (
    config_of,
    model_without_weights,
    random_model,
    renderer_of,
    tune,
)
from es2_lightning.training.step_benchmark.ways import EVERYTHING, Way
from es2_lightning.training.step_benchmark.workbench import Workbench

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel
    from es2_lightning.backbone.settings import ModelSettings
    from es2_lightning.prompts.prompt import PromptSplits
    from es2_lightning.training.settings import StepSettings
    from es2_lightning.training.step_benchmark.benchmark import Progress, StepBenchmark


def compare_ways(
    benchmark: StepBenchmark,
    settings: ModelSettings,
    *,
    shape: str | None,
    step: StepSettings,
    device: torch.device,
    splits: PromptSplits | None,
    progress: Progress,
) -> StepResult:
    """See `StepBenchmark.__call__`."""
    config = config_of(settings, shape)
    text = config.get_text_config(decoder=True)
    layer = benchmark.layer_of(text.num_hidden_layers)
    lengths = _lengths(benchmark, settings, shape, splits)
    batch = random_batch(
        lengths,
        vocab_size=text.vocab_size,
        kl_positions=benchmark.kl_positions,
        seed=benchmark.seed,
    )
    ways = tuple(benchmark.ways(step, settings))

    def bench_of(chat_model: ChatModel) -> Workbench:
        tune(chat_model, settings.lora, seed=benchmark.seed)
        return Workbench(chat_model, batch, layer=layer, kl_positions=benchmark.kl_positions)

    dtype, attention = settings.dtype, settings.attn_implementation
    empty = bench_of(model_without_weights(config, dtype=dtype, attn_implementation=attention))
    floors = Floors(
        config, settings.lora, lengths, layer=layer, kl_positions=benchmark.kl_positions
    )
    counted = count(empty, ways, vocab_size=text.vocab_size, floor_of=floors.of, progress=progress)
    trained = sum(p.numel() for p in empty.trained)
    measured = Measured(
        model=shape or settings.name_or_path,
        parameters=sum(p.numel() for p in empty.model.parameters()) - trained,
        trained=trained,
        lora_dropout=settings.lora.lora_dropout,
        dtype=dtype,
        depth=text.num_hidden_layers,
        layer=layer,
        kl_positions=benchmark.kl_positions,
        seed=benchmark.seed,
        threads=torch.get_num_threads(),
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        lengths=lengths,
    )
    build = _build_cost(empty, ways, text.vocab_size)
    if device.type == "meta":
        return StepResult(measured, ways, counted, floors.absolute, build)
    if shape is None:
        chat_model = load_chat_model(settings)
        chat_model.model.to(device)
    else:
        chat_model = random_model(
            config, device, dtype=dtype, attn_implementation=attention, seed=benchmark.seed
        )
    bench = bench_of(chat_model)
    ran, failed, kl = run(bench, ways, counted, progress=progress)
    timings = time_ways(
        bench,
        [way for way in ways if way.name in ran],
        rounds=benchmark.rounds,
        progress=progress,
    )
    peak = benchmark.peak_tflops
    return StepResult(
        measured,
        ways,
        counted,
        floors.absolute,
        replace(build, seconds=seconds_of(lambda: _reference_pass(bench, ways))),
        run=ran,
        failed=failed,
        timings=timings,
        kl=kl,
        peak_flops=peak * 1e12
        if peak is not None
        else peak_flops_of(measured.device_name or "", dtype),
    )


def _lengths(
    benchmark: StepBenchmark,
    settings: ModelSettings,
    shape: str | None,
    splits: PromptSplits | None,
) -> BatchLengths:
    numbers = {"harmless": benchmark.harmless, "harmful": benchmark.harmful}
    prefix = benchmark.prefix_tokens
    if benchmark.lengths == "builtin":
        return built_in_lengths(**numbers, prefix=TEMPLATE_PREFIX if prefix is None else prefix)
    assert splits is not None
    renderer = None if shape is not None else renderer_of(settings)
    if renderer is not None and prefix is not None:
        raise UserError(
            f"benchmark.prefix_tokens={prefix} with benchmark.lengths=data: the model's own "
            "template says how many there are. Accepted: benchmark.prefix_tokens=null, with "
            "model.system_prompt=<text> for a longer one."
        )
    return lengths_of_prompts(splits, renderer, **numbers, prefix=prefix)


def _build_cost(bench: Workbench, ways: Sequence[Way], vocab_size: int) -> CacheBuild:
    """What the cache of the harmless prompts costs, counted on `meta`."""
    flops = count_flops(lambda: _reference_pass(bench, ways), vocab_size=vocab_size).total
    harmless = sum(1 for row in bench.batch.rows if row.output_positions)
    held = {
        way.hold: bench.cache_bytes_of(way) / harmless for way in ways if way.reference == "cached"
    }
    return CacheBuild(
        flops=flops,
        seconds=None,
        bytes_per_prompt=held["hidden_states"],
        statistics_bytes_per_prompt=held["statistics"],
    )


def _reference_pass(bench: Workbench, ways: Sequence[Way]) -> object:
    """What is computed once of the harmless prompts, packed as the best way packs."""
    packing = next(bench.packing_of(way) for way in ways if way.name == EVERYTHING)
    return AdapterReference(bench.chat_model, packing=packing).outputs(bench.batch.rows)
