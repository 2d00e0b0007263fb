"""`python -m es2_lightning.evaluate`: attacks, judges and capability, before and after tuning."""

from __future__ import annotations

import logging
from pathlib import Path

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.evaluate_check import check_built, check_evaluate
from es2_lightning.config.evaluate_schema import EvaluateConfig
from es2_lightning.config.evaluated_run import take_over, with_preset, with_taken_over
from es2_lightning.config.secrets import resolved, save_resolved

log = logging.getLogger(__name__)


@command(
    "evaluate",
    schema=EvaluateConfig,
    check=check_evaluate,
    check_built=check_built,
    prepare=with_preset,
    own_values={"model": "model=hf model.name_or_path={value}"},
)
def main(config: EvaluateConfig) -> None:
    """Compose, build, measure, report."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.evaluation.folder_lock import alone_in

    folder = job.output_dir()
    with alone_in(folder):
        _evaluate(config, folder)


def _evaluate(config: EvaluateConfig, folder: Path) -> None:
    from es2_lightning.config.run_loggers import build_loggers
    from es2_lightning.config.versions import save_versions
    from es2_lightning.evaluation_run import evaluate
    from es2_lightning.reports.page.run_page import report_run
    from es2_lightning.reports.run_log import RunLog
    from es2_lightning.reports.run_report import write_report

    run = None
    if config.run is not None:
        config, run = take_over(config, job.overrides())
    log.info("Selected: %s", job.selected(config))
    composed = job.composed_config()
    if run is not None:
        log.info("From the run: model, data and seed, but for what the command line sets")
        composed = with_taken_over(composed, config, run)
    save_resolved(composed, folder / "config.yaml")
    save_versions(folder / "versions.json", seed=config.seed)
    trained = None if run is None else run.folder
    loggers = build_loggers(config.logger, folder, job_type="evaluate", trained=trained)
    with RunLog(loggers, folder) as run_log:
        run_log.begin(resolved(composed))
        if run is not None:
            run_log.uses(run.folder, run.adapter)
        try:
            comparison = evaluate(config, folder, run=run)
        except KeyboardInterrupt:
            log.info(
                "What was measured is kept in %s; the same command goes on from there.", folder
            )
            raise
        written = write_report(comparison, folder, separated_layers=run.layers if run else [])
        report = [folder / "config.yaml", *written, report_run(folder)]
        run_log.results(comparison, folder)
        run_log.files(trained=None, results=folder, report=report)
    log.info("Figures, generations and pictures: %s", folder)


if __name__ == "__main__":
    main()
