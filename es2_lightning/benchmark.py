"""`python -m es2_lightning.benchmark`: what a fast way gains over the naive one."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from es2_lightning.config import job
from es2_lightning.config.benchmark_check import check_benchmark, check_built, prepare
from es2_lightning.config.benchmark_schema import BenchmarkConfig
from es2_lightning.config.command import command
from es2_lightning.config.secrets import save_resolved
from es2_lightning.training.scaling.benchmark import ScalingBenchmark
from es2_lightning.training.step_benchmark.benchmark import StepBenchmark

if TYPE_CHECKING:
    from es2_lightning.evaluation.progress import Progress
    from es2_lightning.training.scaling.results import ScalingResult
    from es2_lightning.training.step_benchmark.results import StepResult

log = logging.getLogger(__name__)


@command(
    "benchmark",
    schema=BenchmarkConfig,
    check=check_benchmark,
    check_built=check_built,
    prepare=prepare,
    own_values={"model": "model=hf model.name_or_path={value}"},
)
def main(config: BenchmarkConfig) -> None:
    """Time, show, keep."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    import torch

    from es2_lightning.config.objects import build
    from es2_lightning.config.versions import save_versions
    from es2_lightning.evaluation.progress import rich_progress
    from es2_lightning.reports.benchmark_report import write_benchmark_report
    from es2_lightning.reports.scaling_report import write_scaling_report
    from es2_lightning.reports.step_benchmark_report import write_step_report

    folder = job.output_dir()
    save_resolved(job.composed_config(), folder / "config.yaml")
    save_versions(folder / "versions.json", seed=config.benchmark.get("seed", 0))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    benchmark = build(config.benchmark, "benchmark")
    with rich_progress() as progress:
        if isinstance(benchmark, StepBenchmark):
            write = partial(write_step_report, _measure_step(benchmark, config, progress))
        elif isinstance(benchmark, ScalingBenchmark):
            write = partial(write_scaling_report, _measure_scaling(benchmark, config, progress))
        else:
            write = partial(write_benchmark_report, _measure_pair(benchmark, config, progress))
    log.info("The figures: %s", write(folder))


def _measure_step(
    benchmark: StepBenchmark, config: BenchmarkConfig, progress: Progress
) -> StepResult:
    """A training step, in every way."""
    from es2_lightning.backbone.devices import choose_device
    from es2_lightning.config.loaded_prompts import load_prompts

    return benchmark(
        config.model,
        shape=config.model.shape,
        step=config.step,
        device=choose_device(config.device),
        splits=load_prompts(config.data.source) if benchmark.lengths == "data" else None,
        progress=progress,
    )


def _measure_scaling(
    benchmark: ScalingBenchmark, config: BenchmarkConfig, progress: Progress
) -> ScalingResult:
    """A step on processes, and on clusters."""
    assert config.model.shape is not None
    return benchmark(
        config.model,
        shape=config.model.shape,
        step=config.step,
        threads=config.threads or 1,
        only_predict=config.device == "meta",
        progress=progress,
    )


def _measure_pair(benchmark: Any, config: BenchmarkConfig, progress: Progress) -> Any:
    """Two ways of doing something else with a model and prompts."""
    from es2_lightning.backbone.devices import choose_device
    from es2_lightning.backbone.loading import load_chat_model
    from es2_lightning.config.loaded_prompts import load_prompts

    splits = load_prompts(config.data.source)
    chat_model = load_chat_model(config.model)
    chat_model.model.to(choose_device(config.device))
    return benchmark(chat_model, splits, progress=progress)


if __name__ == "__main__":
    main()
