"""`python -m es2_lightning.train`: fine-tune, measure before and after, save the adapter."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.devices import processes_of
from es2_lightning.config.going_on import checkpoint_to_go_on_from, telling_how_to_go_on
from es2_lightning.config.job_record import is_first_rank, records
from es2_lightning.config.method_words import ignored_words
from es2_lightning.config.secrets import resolved, save_resolved
from es2_lightning.config.sweep_start import StartedSweep
from es2_lightning.config.train_check import check_built, check_train
from es2_lightning.config.train_schema import TrainConfig
from es2_lightning.stopping import stop_signals

if TYPE_CHECKING:
    from es2_lightning.reports.run_log import RunLog

log = logging.getLogger(__name__)


def _tell_of_job(sweep: Path) -> None:
    from es2_lightning.reports.sweep_report import write_sweep_files

    write_sweep_files(sweep)


def _tell_of_sweep(started: StartedSweep | None) -> None:
    # Imported by its jobs, if they ran in this process.
    if "es2_lightning.sweep" in sys.modules:
        from es2_lightning.sweep import end_sweep

        if (sweep := end_sweep()) is not None and sweep.jobs:
            print(sweep.summary(start=job.check_seconds()))
    if started is not None and records(started.folder):
        from es2_lightning.reports.sweep_report import show_sweep

        show_sweep(started.folder, since=started.at)


@command(
    "train",
    schema=TrainConfig,
    check=check_train,
    check_built=check_built,
    after_job=_tell_of_job,
    after_jobs=_tell_of_sweep,
    processes=lambda config: 1 if config.estimate else processes_of(config.trainer),
    own_values={
        "model": "model=hf model.name_or_path={value}",
        "layers": "layers=list layers.indices={list}",
    },
)
def main(config: TrainConfig) -> tuple[float, ...] | None:
    """Compose, build, run, report; gives the sweep's objectives, if anything was measured."""
    with stop_signals.heeded(), telling_how_to_go_on():
        return _run(config)


def _run(config: TrainConfig) -> tuple[float, ...] | None:
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.config.run_loggers import build_loggers
    from es2_lightning.config.versions import save_versions
    from es2_lightning.evaluation.headline_figures import headline_figures
    from es2_lightning.reports.run_log import RunLog

    if config.estimate:
        _show_estimate(config)
        return None
    folder = job.output_dir()
    log.info("Selected: %s", job.selected(config))
    for sentence in ignored_words(config.method, job.overrides()):
        log.warning(sentence)
    save_resolved(job.composed_config(), folder / "config.yaml")
    save_versions(folder / "versions.json", seed=config.seed)

    loggers = build_loggers(config.logger, folder, job_type="train")
    with RunLog(loggers, folder, first=is_first_rank()) as run_log:
        measured = _train(config, folder, run_log)
    log.info("The run's folder: %s", folder)
    if not measured:
        return None
    figures = headline_figures(folder)
    return tuple(figures[name] for name in config.objectives)


def _train(config: TrainConfig, folder: Path, run_log: RunLog) -> bool:
    """All of a run; whether anything was measured."""
    from es2_lightning.config.earlier_run import ADAPTER
    from es2_lightning.reports.page.run_page import report_run
    from es2_lightning.reports.run_report import write_report
    from es2_lightning.shared_run import measure_alone, save_whole
    from es2_lightning.sweep import current_sweep
    from es2_lightning.training_run import EVALUATION, build_run

    checkpoint = checkpoint_to_go_on_from(config.ckpt_path)
    began = time.monotonic()
    sweep = current_sweep()
    # What a logger refuses is told before the weights load.
    run_log.begin(resolved(job.composed_config()))
    run = build_run(config, folder, loggers=run_log.loggers, sweep=sweep)
    if checkpoint is not None:
        run.check(checkpoint)
    # Where several processes train, the first measures alone when the others are through.
    base = None if run.shared else run.measure("base")
    run.train(ckpt_path=checkpoint)
    if run.shared:
        save_whole(run)
        comparison = measure_alone(run, config)
    else:
        run.save_adapter()
        comparison = run.compare(base, run.measure("tuned"))
    report: list[Path | None] = [folder / name for name in ("config.yaml", "metrics.csv")]
    if comparison is not None:
        report += write_report(
            comparison, folder, separated_layers=run.separated, metrics=run.metrics.read()
        )
        run_log.results(comparison, folder / EVALUATION, step=run.trainer.global_step)
    if run.trainer.is_global_zero:
        report.append(report_run(folder))
    run_log.files(trained=folder / ADAPTER, results=folder / EVALUATION, report=report)
    # The processes of a shared job end with it, and have given up their weights.
    if sweep is not None and not run.shared:
        run.seconds.total = time.monotonic() - began
        sweep.finish(run.chat_model, run.seconds)
    return comparison is not None


def _show_estimate(config: TrainConfig) -> None:
    from rich.console import Console

    from es2_lightning.reports.estimate_report import estimate_table
    from es2_lightning.training.trainer import make_trainer
    from es2_lightning.training_estimate import estimate_run
    from es2_lightning.training_parts import read_data

    log.info("Selected: %s", job.selected(config))
    trainer = make_trainer(config.trainer, folder=job.output_dir(), loggers=[], callbacks=[])
    estimate = estimate_run(config, read_data(config), trainer.strategy.root_device)
    Console().print(estimate_table(estimate))


if __name__ == "__main__":
    main()
