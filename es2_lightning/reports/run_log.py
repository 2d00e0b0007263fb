"""What a run tells its loggers beside its steps: what was measured, and in W&B the files too."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

from es2_lightning.errors import UserError
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.headline_figures import figures_of
from es2_lightning.evaluation.results_files import FILES
from es2_lightning.reports.wandb_record import read_record, write_record

log = logging.getLogger(__name__)
BY_LAYER = ("probe_accuracy", "distance_between_relative")
"""Which figures of an evaluation are logged for each layer."""


class RunLog:
    """The loggers that were chosen; a context that ends W&B's run, whatever happens in it.

    Args:
        loggers: Lightning's.
        folder: The run's.
        first: Whether this process is the one that writes.
    """

    def __init__(self, loggers: Sequence[Logger], folder: Path, *, first: bool = True) -> None:
        self.loggers = list(loggers)
        self.folder = folder
        self.first = first

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for run in self._wandb_runs(begin=False):
            # W&B shows a run with a status other than 0 as failed.
            run.finish(exit_code=0 if error is None else 1)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Have W&B begin its run now, rather than at the first step.

        Args:
            config: What W&B shows of it: without secrets, and with the environment's variables as
                they are written. Not handed over through the logger's own config, in which they
                would be resolved.

        Raises:
            UserError: It cannot.
        """
        for run in self._wandb_runs(begin=True):
            write_record(run, self.folder)
            # A run that goes on may have another checkpoint's path.
            run.config.update(dict(config), allow_val_change=True)

    def uses(self, trained: Path, adapter: Path | None) -> None:
        """Say whose model is measured here.

        Args:
            trained: The training run's folder.
            adapter: What it trained; None where all weights were.
        """
        for run in self._wandb_runs():
            from es2_lightning.reports.wandb_run import use_adapter

            by = read_record(trained).get("id")
            run.config.update({"trained_by": by, "trained_in": str(trained)})
            if adapter is not None:
                use_adapter(run, trained, adapter)

    def results(self, comparison: Comparison, results: Path, *, step: int = 0) -> None:
        """Log what was measured, and in W&B its tables.

        Args:
            comparison: Base against tuned, or one model alone.
            results: The folder that `write_results` wrote.
            step: The optimizer step at which the tuned model was measured.
        """
        metrics = evaluation_metrics(comparison, results)
        for logger in self.loggers if self.first else ():
            logger.log_metrics(metrics, step=step)
            logger.save()
        for run in self._wandb_runs():
            from es2_lightning.reports.wandb_run import log_tables

            log_tables(run, comparison)

    def files(
        self, *, trained: Path | None, results: Path | None, report: Sequence[Path | None]
    ) -> None:
        """In W&B: the pictures, and the files as artifacts.

        Args:
            trained: The adapter's folder, where this run trained one.
            results: The folder of an evaluation's results.
            report: Files and folders that make the report; None: one that could not be written.
        """
        for run in self._wandb_runs():
            from es2_lightning.reports.wandb_run import log_artifact, log_pictures

            log_pictures(run, self.folder)
            if trained is not None:
                log_artifact(run, "adapter", [trained], of=run.id)
            if results is not None:
                log_artifact(run, "evaluation", [results / name for name in FILES], of=run.id)
            log_artifact(run, "report", [path for path in report if path], of=run.id)

    def _wandb_runs(self, *, begin: bool | None = None) -> list[Any]:
        """W&B's runs; unless they are to begin, those that have."""
        if not self.first:
            return []
        loggers = [logger for logger in self.loggers if isinstance(logger, WandbLogger)]
        if not begin:
            return [logger.experiment for logger in loggers if logger._experiment is not None]
        from wandb.errors import Error

        try:
            return [logger.experiment for logger in loggers]
        except Error as error:
            raise UserError(
                f"logger=wandb: {str(error).splitlines()[0]} Accepted: `wandb login` or "
                "WANDB_API_KEY, or logger.offline=true."
            ) from error


def evaluation_metrics(comparison: Comparison, results: Path) -> dict[str, float]:
    """Figures by their logged key: the headline judge's, and those that rest on none.

    Args:
        comparison: What was measured.
        results: Its folder, for the headline figures.
    """
    figures = figures_of(results)
    # The front of what is gained against what is lost: W&B draws it from the left.
    figures["capability_lost"] = 1 - figures["capability_kept"]
    found: dict[str, float] = {f"evaluation/{name}": value for name, value in figures.items()}
    for row in comparison.rows:
        by_judge = row.judge in (comparison.headline, "")
        by_layer = row.layer is None or row.metric in BY_LAYER
        # Where an attack does not even work on the base, a defence rate would mean nothing.
        means = row.metric != "defended" or comparison.effective.get(row.attack, True)
        if not (by_judge and by_layer and means):
            continue
        name = row.attack if row.layer is None else f"layer_{row.layer}"
        metric = row.metric.replace("/", ".")
        for measured, estimate in zip(comparison.measurements, (row.base, row.tuned), strict=False):
            if estimate is not None:
                found[f"evaluation/{measured.model}/{name}/{metric}"] = estimate.value
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}
