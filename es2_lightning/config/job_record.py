"""What a job of a sweep leaves about itself: `job.json` in its folder.

The sweep's table is made of these, and the same sweep started again learns from them which jobs
are finished.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from es2_lightning.atomic_files import write_atomically
from es2_lightning.config import job
from es2_lightning.config.config_hash import config_hash
from es2_lightning.errors import UserError, first_line

log = logging.getLogger(__name__)

FILE = "job.json"
Status = Literal["running", "finished", "failed", "interrupted"]
Result = tuple[float, ...] | None


@dataclass(frozen=True)
class JobRecord:
    """A job of a sweep.

    Attributes:
        number: Of the job, from 0.
        subdir: Its folder below the sweep's.
        words: Its overrides.
        choices: The selected choice of each config group.
        hash: Of its resolved config.
        settings_hash: The same without the seed: equal for jobs that differ in nothing else.
        status: How it ended, if it did.
        host: Where it runs, or ran.
        pid: Its process there.
        began: Seconds since 1970.
        seconds: How long it took from there, once it ended.
        error: The first line of what made it fail.
        objectives: What it told the sweeper.
    """

    number: int
    subdir: str
    words: tuple[str, ...]
    choices: dict[str, str]
    hash: str
    settings_hash: str
    status: Status
    host: str
    pid: int
    began: float
    seconds: float | None = None
    error: str | None = None
    objectives: tuple[float, ...] | None = None

    @property
    def ended(self) -> float | None:
        """When it did, seconds since 1970."""
        return None if self.seconds is None else self.began + self.seconds

    def write(self, folder: Path) -> None:
        """Into the job's folder, as a whole."""
        write_atomically(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")


def read(folder: Path) -> JobRecord | None:
    """The record of the job whose folder it is; None where there is none, or it is damaged.

    A job that was killed without a word is told as interrupted, where this machine can know.
    """
    try:
        stored: dict[str, Any] = json.loads((folder / FILE).read_text("utf-8"))
        names = {field.name for field in fields(JobRecord)}
        record = JobRecord(**{name: stored[name] for name in names & stored.keys()})
        objectives = record.objectives
        record = replace(
            record,
            words=tuple(record.words),
            objectives=None if objectives is None else tuple(map(float, objectives)),
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if record.status == "running" and record.host == socket.gethostname():
        return record if _lives(record.pid) else replace(record, status="interrupted")
    return record


def records(sweep: Path) -> dict[Path, JobRecord]:
    """Every job's folder below a sweep's, with its record, in the order of their numbers.

    Jobs of another sweep, whose folder is below this one, are not among them.
    """
    found = {path.parent: read(path.parent) for path in sweep.rglob(FILE)}
    jobs = [
        (folder, record)
        for folder, record in found.items()
        if record is not None and folder.relative_to(sweep) == Path(record.subdir)
    ]
    return dict(sorted(jobs, key=lambda item: (item[1].number, str(item[0]))))


def is_first_rank() -> bool:
    """Whether this is the process of its job that writes: launchers number the others from 1."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


def run_recorded(start: Callable[[], Result], after: Callable[[Path], None]) -> Result:
    """Runs a job and records how it ends; one that finished earlier is not run again.

    A single run is run, and nothing else; so is a job that only estimates what it would take.

    Args:
        start: Runs it.
        after: Called with the sweep's folder when the job has ended, however it did.

    Raises:
        UserError: The job's folder holds another job.
    """
    sweep, folder = job.sweep_dir(), job.output_dir()
    only_looks = job.composed_config().get("estimate", False)
    if sweep is None or only_looks or not is_first_rank():
        return start()
    record = _new_record(job.composed_config(), folder, sweep)
    earlier = read(folder)
    refuse_other_job(record.hash, folder)
    if earlier is not None and earlier.status == "finished":
        log.info("Job %d is finished already, and not run again: %s", record.number, folder)
        return earlier.objectives
    record.write(folder)
    try:
        result = start()
    except BaseException as error:
        if isinstance(error, Exception):
            _end(record, folder, status="failed", error=first_line(error))
        else:
            _end(record, folder, status="interrupted")
        raise
    else:
        _end(record, folder, status="finished", objectives=result)
        return result
    finally:
        after(sweep)


def refuse_other_job(own_hash: str, folder: Path) -> None:
    """Refuse to write over what another job, or another run, left.

    Raises:
        UserError: The folder's job is not the one with this config.
    """
    earlier = read(folder)
    if earlier is not None and earlier.hash != own_hash:
        raise UserError(
            f"{folder} holds a job with another config ({' '.join(earlier.words) or 'no words'}). "
            "Accepted: the words of the sweep that is to go on, in their order, with new values "
            "at the end of the first swept key only; or a new sweep, without hydra.sweep.dir and "
            "ckpt_path=last."
        )
    if earlier is None and (folder / "config.yaml").exists():
        raise UserError(
            f"{folder} holds a run that is no job of a sweep. Accepted: hydra.sweep.dir=<a sweep's "
            "folder, or a new one>."
        )


def tell_killed(folder: Path, error: str) -> None:
    """Record that a job's process ended without a word; nothing where it did say how it ended."""
    record = read(folder)
    if record is not None and record.status in ("running", "interrupted"):
        _end(record, folder, status="failed", error=error)


def _new_record(config: DictConfig, folder: Path, sweep: Path) -> JobRecord:
    return JobRecord(
        number=int(HydraConfig.get().job.num),
        subdir=os.path.relpath(folder, sweep),
        words=tuple(job.overrides()),
        choices=job.choices(),
        hash=config_hash(config, folder=folder),
        settings_hash=config_hash(config, folder=folder, seed=False),
        status="running",
        host=socket.gethostname(),
        pid=os.getpid(),
        began=time.time(),
    )


def _end(record: JobRecord, folder: Path, **how: Any) -> None:
    replace(record, seconds=round(time.time() - record.began, 3), **how).write(folder)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
