"""`python -m es2_lightning.probe`: in which layers harmful and harmless prompts part."""

from __future__ import annotations

import logging

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.evaluated_run import take_over, with_preset
from es2_lightning.config.probe_check import check_built, check_probe
from es2_lightning.config.probe_schema import ProbeConfig
from es2_lightning.config.secrets import save_resolved

log = logging.getLogger(__name__)


@command(
    "probe",
    schema=ProbeConfig,
    check=check_probe,
    check_built=check_built,
    prepare=with_preset,
    own_values={"model": "model=hf model.name_or_path={value}"},
)
def main(config: ProbeConfig) -> None:
    """Probe, show, keep."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.evaluation.progress import rich_progress
    from es2_lightning.probing_run import probe
    from es2_lightning.reports.probe_report import write_probe_report

    folder = job.output_dir()
    run = None
    if config.run is not None:
        config, run = take_over(config, job.overrides())
    tuned = config.run or config.adapter
    log.info("Model: %s%s", config.model.name_or_path, f", tuned: {tuned}" if tuned else "")
    save_resolved(job.composed_config(), folder / "config.yaml")
    with rich_progress() as progress:
        results = probe(config, run, progress)
    about = {
        "model": config.model.name_or_path,
        "adapter": config.adapter,
        "run": config.run,
        "prompts": config.data.source,
        "scale_free": config.scale_free,
        "seed": config.seed,
    }
    write_probe_report(results, folder, about=about)
    log.info("The run's folder: %s", folder)


if __name__ == "__main__":
    main()
