"""Jobs of a sweep that run at the same time, each in its own processes on its own devices."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from es2_lightning.config.devices import on_cpu, processes_of, shares
from es2_lightning.config.going_on import telling_how_to_go_on
from es2_lightning.config.job_record import tell_killed
from es2_lightning.config.process_group import ProcessGroup, forwarding, threads_each
from es2_lightning.config.running import running_command
from es2_lightning.errors import JobFailed, UserError
from es2_lightning.stopping import Stopped

log = logging.getLogger(__name__)
TERMINAL = "terminal.txt"
"""In a job's folder: what it would have printed."""
_LAST_LINES = 8
_POLL = 0.05


@dataclass
class _Job:
    number: int
    words: str
    config: DictConfig
    folder: Path


@dataclass
class _Running:
    job: _Job
    group: ProcessGroup
    began: float


def launch(
    job_overrides: Sequence[Sequence[str]],
    *,
    first: int,
    n_jobs: int,
    sweep: DictConfig,
    loader: ConfigLoader,
) -> list[JobReturn]:
    """Run the jobs, at most `n_jobs` of them at the same time.

    Args:
        job_overrides: The words of each job.
        first: The number of the first one.
        n_jobs: How many run at once.
        sweep: The config of the sweep.
        loader: That composed it.

    Returns:
        What became of each.

    Raises:
        UserError: A job asks for more devices than are there for it.
        KeyboardInterrupt: Ctrl-C.
        Stopped: A signal told the sweep to end.
    """
    setup_globals()
    configure_log(sweep.hydra.hydra_logging, sweep.hydra.verbose)
    if n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} is not accepted. Accepted: ≥ 1.")
    jobs = [
        _job(list(words), first + number, sweep, loader)
        for number, words in enumerate(job_overrides)
    ]
    environments = _environments(jobs, n_jobs)
    log.info("%d jobs, %d at once", len(jobs), min(n_jobs, len(jobs)))
    waiting, running, free = list(jobs), dict[int, _Running](), list(range(n_jobs))
    returns: dict[int, JobReturn] = {}
    groups: list[ProcessGroup] = []
    with forwarding(groups) as came:
        try:
            while running or (waiting and not came):
                while waiting and free and not came:
                    share = free.pop(0)
                    started = _start(waiting.pop(0), share, environments)
                    running[share] = started
                    groups.append(started.group)
                time.sleep(_POLL)
                for share, ended in list(running.items()):
                    if ended.group.is_running():
                        continue
                    del running[share]
                    free.append(share)
                    groups.remove(ended.group)
                    returns[ended.job.number] = _end(
                        ended, f"[{len(returns) + 1}/{len(jobs)}]", told=not came
                    )
        finally:
            for group in groups:
                group.kill()
    if came:
        if signal.SIGINT in came:
            raise KeyboardInterrupt
        with telling_how_to_go_on():
            raise Stopped(came[0])
    return [returns[job.number] for job in jobs]


def _job(words: list[str], number: int, sweep: DictConfig, loader: ConfigLoader) -> _Job:
    config = loader.load_sweep_config(sweep, words)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    HydraConfig.instance().set_config(config)  # The subfolder may ask for it.
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    return _Job(number, " ".join(filter_overrides(words)), config, folder.absolute())


def _environments(jobs: list[_Job], n_jobs: int) -> dict[int, list[dict[str, str]]]:
    """For each job, the environment that it would have in each of the shares of the devices."""
    gpus: list[list[str]] | None = None
    found = {}
    for job in jobs:
        trainer: Any = OmegaConf.select(job.config, "trainer") or {}
        cpu = on_cpu(trainer)
        processes = n_jobs * (processes_of(trainer) if cpu else 1)
        threads = {"OMP_NUM_THREADS": str(threads_each(processes))}
        if cpu:
            found[job.number] = [threads] * n_jobs
            continue
        gpus = gpus or shares(n_jobs)
        devices, each = trainer.get("devices", 1), len(gpus[0])
        if OmegaConf.is_list(devices) or (str(devices).isdigit() and int(devices) > each):
            raise UserError(
                f"Job {job.number} of the sweep: trainer.devices={devices} with "
                f"hydra.launcher.n_jobs={n_jobs}: each of the jobs that run at once has {each} "
                f"GPUs of its own. Accepted: 1 … {each}, or auto for all of them."
            )
        found[job.number] = [threads | {"CUDA_VISIBLE_DEVICES": ",".join(g)} for g in gpus]
    return found


def _start(job: _Job, share: int, environments: dict[int, list[dict[str, str]]]) -> _Running:
    job.folder.mkdir(parents=True, exist_ok=True)
    group = ProcessGroup(
        running_command().program,
        job.config,
        words=sys.argv[1:],
        environment=environments[job.number][share],
        terminal=job.folder / TERMINAL,
    )
    group.start()
    return _Running(job, group, time.monotonic())


def _end(ended: _Running, count: str, *, told: bool) -> JobReturn:
    job = ended.job
    returned = JobReturn(
        overrides=list(job.config.hydra.overrides.task),
        working_dir=str(job.folder),
        task_name=job.config.hydra.job.name,
    )
    name = f"{count} Job {job.number} ({job.words})"
    seconds = time.monotonic() - ended.began
    try:
        returned.return_value = ended.group.result()
        returned.status = JobStatus.COMPLETED
        log.info("%s: done in %.0f s, %s", name, seconds, job.folder)
    except (JobFailed, KeyboardInterrupt, SystemExit) as error:
        failed = error if isinstance(error, JobFailed) else JobFailed(f"it ended with {error!r}")
        returned.return_value = failed
        returned.status = JobStatus.FAILED
        tell_killed(job.folder, str(failed))
        if told:
            running_command().fail(job.number, job.words, str(failed))
            lines = (job.folder / TERMINAL).read_text("utf-8", "replace").splitlines()
            log.error(
                "%s: failed after %.0f s: %s\n%s\n    All that it said: %s",
                name,
                seconds,
                failed,
                "\n".join(f"    {line}" for line in lines[-_LAST_LINES:]),
                job.folder / TERMINAL,
            )
    return returned
