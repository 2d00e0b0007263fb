"""A job that another process runs: its config goes there in a file, its outcome comes back.

The config itself is handed over, not the words that it was composed of: values that are found out
once, such as a folder named for the time, are the same in all processes, and a sweep's words need
no second parsing.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from es2_lightning.errors import JobFailed, UserError, first_line

_FOLDER, _PARENT = "ES2_HANDED_JOB", "ES2_PARENT"
_JOB = "job.pkl"


@dataclass(frozen=True)
class HandedJob:
    """A job as it arrives.

    Attributes:
        folder: Through which it was handed, and its outcome is handed back.
        config: The composed config.
        hydra: Hydra's own, if this process is one of several for a job that is under way already.
            Otherwise it stands in the config, and the job is run as Hydra would run it.
    """

    folder: Path
    config: DictConfig
    hydra: DictConfig | None


@dataclass(frozen=True)
class Outcome:
    """How a process ended, by its own account.

    Attributes:
        returned: By the job's function.
        error: Its error in a sentence; None: there was none.
        report: What is shown of the error.
        time: When it ended: of several processes, the first to fail has the cause.
        interrupted: Whether it was.
        status: With which it ended itself, by `sys.exit`.
    """

    returned: Any = None
    error: str | None = None
    report: str = ""
    time: float = 0.0
    interrupted: bool = False
    status: int = 0


def hand_over(folder: Path, config: DictConfig, hydra: DictConfig | None) -> dict[str, str]:
    """Writes a job; gives the environment in which a process finds it."""
    (folder / _JOB).write_bytes(pickle.dumps((config, hydra)))
    return {_FOLDER: str(folder), _PARENT: str(os.getpid())}


def receive() -> HandedJob | None:
    """The job that this process was started for; None where it has a command line of its own.

    From now on this process ends when the one that started it does, however that ends.
    """
    # What this process starts has jobs of its own.
    folder, parent = os.environ.pop(_FOLDER, None), os.environ.pop(_PARENT, None)
    if folder is None or parent is None:
        return None
    _end_with(int(parent))
    # Finding them executes their modules anew, with classes that are not those of before.
    Plugins.instance()
    config, hydra = pickle.loads((Path(folder) / _JOB).read_bytes())
    return HandedJob(Path(folder), config, hydra)


def hand_back(job: HandedJob, outcome: Outcome, *, rank: int) -> None:
    """Tells how it ended."""
    try:
        written = pickle.dumps(outcome)
    except Exception:  # What the function returned is its own affair.
        written = pickle.dumps(Outcome(None, outcome.error, outcome.report, outcome.time))
    file = job.folder / f"outcome_{rank}"
    part = file.with_suffix(".part")
    part.write_bytes(written)
    part.replace(file)


def outcome(folder: Path, *, rank: int) -> Outcome | None:
    """What `hand_back` told; None where the process ended before it could."""
    try:
        found: Outcome = pickle.loads((folder / f"outcome_{rank}").read_bytes())
    except FileNotFoundError:
        return None
    return found


def failure(error: BaseException) -> Outcome:
    """What is told of an error: a user's mistake in its sentence, all else with its traceback."""
    if isinstance(error, JobFailed):
        return Outcome(None, str(error), error.report, time.time())
    if isinstance(error, SystemExit):
        status = status_of(error)
        return Outcome(None, f"it ended with status {status}", "", time.time(), status=status)
    report = (
        f"Error: {error}"
        if isinstance(error, UserError)
        else "".join(traceback.format_exception(error))
    )
    return Outcome(
        None, first_line(error), report, time.time(), isinstance(error, KeyboardInterrupt)
    )


def status_of(error: SystemExit) -> int:
    """The exit status that `sys.exit` asks for."""
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # It has gone already.
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
