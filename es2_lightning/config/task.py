"""What becomes of a job's config: checked, run here, or shared among processes of its own.

Whoever calls it, Hydra's launchers in this process or in a worker's, a job for several devices
gets a process for each of them, and the sweep's own process never trains it: Lightning would start
the others by the sweep's command line, each of them a whole sweep.
"""

from __future__ import annotations

import argparse
import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, configure_log, env_override, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write

from es2_lightning.config import job
from es2_lightning.config.handed_job import (
    HandedJob,
    Outcome,
    failure,
    hand_back,
    status_of,
)
from es2_lightning.config.job_record import run_recorded
from es2_lightning.config.loading import config_loader
from es2_lightning.config.precheck import Precheck
from es2_lightning.config.process_group import ProcessGroup, run_group
from es2_lightning.config.rank_agreement import RankAgreement
from es2_lightning.config.ranks import Rank, hush, this_rank
from es2_lightning.config.running import RunningCommand
from es2_lightning.config.secrets import resolved
from es2_lightning.errors import JobFailed, UserError, first_line

VERSION_BASE = "1.3"
"""Hydra's defaults are those of this version."""
Task = Callable[[DictConfig], Any]


def as_task(
    main: Callable[[Any], Any],
    precheck: Precheck,
    running: RunningCommand,
    *,
    processes: Callable[[Any], int] | None,
    after_job: Callable[[Path], None] | None,
    handed: HandedJob | None = None,
) -> Task:
    """What Hydra calls with each job's config; gives what `main` does, which a sweeper may use.

    Args:
        main: The command's function.
        precheck: What it accepts.
        running: The command.
        processes: How many processes a config asks for.
        after_job: Called with a sweep's folder when a job of it is over; see `run_recorded`.
        handed: What this process was started for, if another one has the word.
    """
    is_rank = handed is not None and handed.hydra is not None

    @functools.wraps(main)
    def task(config: DictConfig) -> Any:
        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            with job.composed(config):
                rank = this_rank()
                if rank is not None and rank.world > 1:
                    _agree(rank, config, handed.folder if handed is not None else None)

                def start() -> Any:
                    # Once more: a sweeper may have chosen values that no check has seen.
                    received = precheck.typed(config)
                    count = processes(received) if processes is not None and rank is None else 1
                    return _share(config, count, running) if count > 1 else main(received)

                # Who started ranks records the job.
                return start() if after_job is None or is_rank else run_recorded(start, after_job)
        except Exception as error:
            if is_rank:
                raise  # Who started it tells.
            hydra = HydraConfig.get()
            words = " ".join(hydra.overrides.task)
            running.fail(hydra.job.num if in_sweep else None, words, first_line(error))
            tell_failure(error)
            if in_sweep:
                # Hydra marks the job as failed and goes on with the others.
                raise
        return None

    return task


def run_handed(handed: HandedJob, task: Task, precheck: Precheck) -> int:
    """Runs the job for which this process was started; gives its exit status."""
    rank = this_rank() if handed.hydra is not None else None
    number = 0 if rank is None else rank.number
    version.setbase(VERSION_BASE)
    nothing = argparse.Namespace(config_path=None, config_dir=None)
    try:
        with config_loader(precheck.conf, nothing, task_name=precheck.config_name) as loader:
            if rank is None:
                context = HydraContext(config_loader=loader, callbacks=Callbacks(handed.config))
                ended = run_job(
                    task, handed.config, "hydra.sweep.dir", "hydra.sweep.subdir", context
                )
                # `return_value` would say that it failed, which the task has done.
                returned = ended._return_value
                if ended.status == JobStatus.FAILED:
                    raise returned
            else:
                whole: Any = handed.hydra
                HydraConfig.instance().cfg = whole
                if number:
                    hush(rank)
                else:
                    configure_log(whole.hydra.job_logging, whole.hydra.verbose)
                returned = task(handed.config)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        hand_back(handed, failure(error), rank=number)
        if isinstance(error, SystemExit):
            return status_of(error)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    hand_back(handed, Outcome(returned), rank=number)
    return 0


def run_beside(rank: Rank, task: Task, precheck: Precheck, arguments: argparse.Namespace) -> None:
    """Runs the job as one of the processes that torchrun or srun started, beside the first.

    The first one runs it as Hydra does. The others make no folder and write nothing.
    """
    hush(rank)
    version.setbase(VERSION_BASE)
    with config_loader(precheck.conf, arguments, task_name=precheck.config_name) as loader:
        name = arguments.config_name or precheck.config_name
        config = loader.load_configuration(name, list(arguments.overrides), RunMode.RUN)
        with read_write(config.hydra):
            config.hydra.mode = RunMode.RUN
        HydraConfig.instance().set_config(config)
        with read_write(config), open_dict(config):
            environment = config.pop("hydra").job.env_set
        with env_override(environment):
            task(config)


def tell_failure(error: BaseException) -> None:
    """Shows an error: a user's mistake as a sentence, all else with its traceback."""
    if isinstance(error, JobFailed):
        tell(error.report, mark="")
    elif isinstance(error, UserError):
        tell(str(error))
    else:
        tell("".join(traceback.format_exception(error)).rstrip("\n"), mark="")


def tell(message: str, *, mark: str = "Error: ") -> None:
    """Shows a message on stderr, after what was printed; which rank it was, beside the first."""
    sys.stdout.flush()
    rank = this_rank()
    who = f"[rank {rank.number}] " if rank is not None and rank.number else ""
    print(f"{who}{mark}{message.rstrip()}", file=sys.stderr)


def _agree(rank: Rank, config: DictConfig, shared: Path | None) -> None:
    agreement = RankAgreement(rank, shared)
    folder = agreement.folder(job.output_dir() if rank.number == 0 else None)
    if rank.number:
        job.set_output_dir(folder)
    agreement.same_config(resolved(config))


def _share(config: DictConfig, count: int, running: RunningCommand) -> Any:
    hydra: Any = HydraConfig.instance().cfg
    return run_group(
        ProcessGroup(running.program, config, hydra, processes=count, words=sys.argv[1:])
    )
