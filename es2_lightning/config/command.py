"""Turns a function of a typed config into a command, with Hydra's own words and flags.

    @command("train", schema=TrainConfig, check=check_layers)
    def main(config: TrainConfig) -> None: ...

    if __name__ == "__main__":
        main()

The primary config is `conf/train.yaml`, whose defaults list begins with `train_schema`: the
schema under the name that `command` stores it by. Mistakes in the config are reported before
anything runs, in one message without a traceback.

Exit status: 0; 1 if the run or a job of a sweep failed; 2 for a mistake in the config; 130 if it
was interrupted; 128 + the signal's number if a signal asked it to stop and it can go on.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf.errors import OmegaConfBaseException

from es2_lightning.config.checking import explain
from es2_lightning.config.handed_job import receive
from es2_lightning.config.location import conf_dir
from es2_lightning.config.precheck import Precheck
from es2_lightning.config.process_group import program_of
from es2_lightning.config.ranks import leave_group, this_rank
from es2_lightning.config.run_folder import register_resolvers
from es2_lightning.config.running import RunningCommand, running
from es2_lightning.config.sweep_start import StartedSweep, take_started_sweep
from es2_lightning.config.task import (
    VERSION_BASE,
    as_task,
    run_beside,
    run_handed,
    tell,
    tell_failure,
)
from es2_lightning.errors import UserError

Config = TypeVar("Config")

FAILED, MISTAKEN, INTERRUPTED = 1, 2, 130

# A sweep's worker processes import this module, and need the resolvers too.
register_resolvers(reserve=True)


def command(
    config_name: str,
    *,
    schema: type[Config] | None = None,
    check: Callable[[Config], None] | None = None,
    check_built: Callable[[Config], None] | None = None,
    prepare: Callable[[list[str]], list[str]] | None = None,
    own_values: Mapping[str, str] | None = None,
    after_job: Callable[[Path], None] | None = None,
    after_jobs: Callable[[StartedSweep | None], None] | None = None,
    processes: Callable[[Config], int] | None = None,
    conf: Path | None = None,
) -> Callable[[Callable[[Config], Any]], Callable[..., None]]:
    """Makes a function of a config a command.

    Args:
        config_name: the primary config, a file in `conf/`.
        schema: the dataclass of the whole config. Its nested dataclasses are typed nodes; fields
            of type `Any` or `dict[str, Any]` are free-form. Ranges stand in the fields' metadata
            (`es2_lightning.ranges`). The function receives an instance of it; without a schema,
            an OmegaConf DictConfig.
        check: what the types and ranges cannot say, on the whole config; raises UserError.
        check_built: as `check`, for what only libraries can tell that take seconds to import.
        prepare: what the command line means, where some words imply others; called before all
            else with the words, gives them with what they imply.
        own_values: for a config group, how a value of the user's own is written where they took
            the group for the key, with `{value}` or `{list}` for it:
            `{"layers": "layers=list layers.indices={list}"}`.
        after_job: called with a sweep's folder when a job of it is over, however it ended, in the
            job's own process. With it, jobs are recorded, and finished ones not run again.
        after_jobs: called when the run, or all jobs of a sweep, are over, however they ended, with
            the sweep.
        processes: how many processes a config asks for, where it may be several: they are started
            with the same config, and each runs the function.
        conf: the config folder; by default the package's.

    Returns:
        A decorator. What it makes runs the command line, or, called with a config, the function.
    """
    if schema is not None:
        ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)

    def decorate(main: Callable[[Config], Any]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(config: Config | None = None) -> None:
            if config is not None:
                main(config)
                return
            try:
                if prepare is not None:
                    sys.argv[1:] = prepare(sys.argv[1:])
            except UserError as error:
                tell(str(error))
                sys.exit(MISTAKEN)
            precheck = Precheck(
                conf=conf or conf_dir(),
                config_name=config_name,
                schema=schema,
                check=check,
                check_built=check_built,
                own_values=own_values or {},
                records_jobs=after_job is not None,
            )
            try:
                status = _run(
                    main,
                    precheck,
                    processes=processes,
                    after_job=after_job,
                    after_jobs=after_jobs,
                )
            except KeyboardInterrupt:
                rank = this_rank()
                if rank is None or rank.number == 0:
                    print("Interrupted.", file=sys.stderr)
                status = INTERRUPTED
            leave_group(status)
            if status:
                sys.exit(status)

        return run

    return decorate


def _run(
    main: Callable[[Any], Any],
    precheck: Precheck,
    *,
    processes: Callable[[Any], int] | None,
    after_job: Callable[[Path], None] | None,
    after_jobs: Callable[[StartedSweep | None], None] | None,
) -> int:
    command = RunningCommand(program_of(main.__module__))
    if (handed := receive()) is not None:
        task = as_task(
            main, precheck, command, processes=processes, after_job=after_job, handed=handed
        )
        with running(command):
            return run_handed(handed, task, precheck)
    arguments = get_args_parser().parse_args()
    looks = any((arguments.help, arguments.hydra_help, arguments.cfg, arguments.info))
    rank = this_rank()
    beside = rank is not None and rank.number > 0
    if not (arguments.hydra_help or arguments.shell_completion or arguments.experimental_rerun):
        register_resolvers(reserve=False)
        try:
            precheck(arguments)
        except UserError as error:
            if not beside:  # The first one finds the same.
                tell(str(error))
            return MISTAKEN
    register_resolvers(reserve=not (looks or beside))
    task = as_task(main, precheck, command, processes=processes, after_job=after_job)
    application = hydra.main(
        config_path=str(precheck.conf), config_name=precheck.config_name, version_base=VERSION_BASE
    )(task)
    try:
        with _hydra_raises(), running(command):
            if rank is not None and beside and not looks:
                run_beside(rank, task, precheck, arguments)
            else:
                application()
    except Exception as error:
        if looks and isinstance(error, OmegaConfBaseException):
            tell(explain(error))
            return MISTAKEN
        if not command.failures:
            # Raised outside a job, or in a job of another process.
            tell_failure(error)
            return FAILED
    finally:
        if after_jobs is not None:
            after_jobs(take_started_sweep())
    failures = command.failures
    if len(failures) > 1 or (failures and arguments.multirun):
        tell("\n  ".join([f"{len(failures)} of the sweep's jobs failed:", *failures]))
    return FAILED if failures else 0


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Has Hydra raise what a job raises, rather than print it its own way and exit."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
