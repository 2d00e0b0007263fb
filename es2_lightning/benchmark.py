"""`python -m es2_lightning.benchmark benchmark=…`: what a fast way gains over the naive one."""

from __future__ import annotations

import logging

from es2_lightning.config import job
from es2_lightning.config.benchmark_check import check_benchmark, check_built
from es2_lightning.config.benchmark_schema import BenchmarkConfig
from es2_lightning.config.command import command
from es2_lightning.config.secrets import save_resolved

log = logging.getLogger(__name__)


@command(
    "benchmark",
    schema=BenchmarkConfig,
    check=check_benchmark,
    check_built=check_built,
    own_values={"model": "model=hf model.name_or_path={value}"},
)
def main(config: BenchmarkConfig) -> None:
    """Time, show, keep."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    import torch

    from es2_lightning.backbone.devices import choose_device
    from es2_lightning.backbone.loading import load_chat_model
    from es2_lightning.config.loaded_prompts import load_prompts
    from es2_lightning.config.objects import build
    from es2_lightning.config.versions import save_versions
    from es2_lightning.evaluation.progress import rich_progress
    from es2_lightning.reports.benchmark_report import write_benchmark_report

    folder = job.output_dir()
    save_resolved(job.composed_config(), folder / "config.yaml")
    save_versions(folder / "versions.json", seed=0)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    splits = load_prompts(config.data.source)
    chat_model = load_chat_model(config.model)
    chat_model.model.to(choose_device(config.device))
    with rich_progress() as progress:
        result = build(config.benchmark, "benchmark")(chat_model, splits, progress=progress)
    log.info("The figures: %s", write_benchmark_report(result, folder))


if __name__ == "__main__":
    main()
