"""Runs of the train command in processes of their own, killed at a moment of a phase.

The processes are forked from one that has imported everything, so that a run costs what it does.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.train.killed_runs", "es2_lightning.training_run"])
LOADING, CACHE, VALIDATION, SAVE = "loading", "cache build", "validation", "save"
STAGES = ("stage 1", "stage 2")
EVALUATIONS = ("base evaluation", "tuned evaluation")
PHASES = (LOADING, CACHE, *STAGES, VALIDATION, SAVE, *EVALUATIONS)
END = "end"


@dataclass(frozen=True)
class Timeline:
    """When each phase of a run began, in seconds; the last entry is the run's end."""

    entries: tuple[tuple[str, float], ...]

    def lengths(self, phase: str) -> list[float]:
        """Of each of its occurrences."""
        following = zip(self.entries, self.entries[1:], strict=False)
        return [after - at for (name, at), (_, after) in following if name == phase]

    def draw(self, phase: str, rng: random.Random) -> Moment:
        """A moment of a phase, each as likely as any other."""
        lengths = self.lengths(phase)
        (number,) = rng.choices(range(len(lengths)), weights=lengths)
        return Moment(phase, number, rng.uniform(0, lengths[number]))


@dataclass(frozen=True)
class Moment:
    """So many seconds after a phase began for the n-th time, from 0."""

    phase: str
    number: int
    seconds: float


@dataclass(frozen=True)
class Ended:
    """How a run's process ended.

    Attributes:
        phase: The last one that it began; `end` if it was done.
        status: Its exit status, or minus the number of the signal that ended it.
    """

    phase: str
    status: int


def whole_run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Timeline:
    """Runs the command to its end."""
    entries, status = _run(words, folder, lambda entries: None, environment=environment)
    assert status == 0 and entries[-1][0] == END, (folder / "log").read_text()
    return Timeline(tuple(entries))


def run_killed_at(
    moment: Moment,
    words: Sequence[str],
    folder: Path,
    *,
    signum: int = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Runs the command and sends it a signal."""

    def delay(entries: list[tuple[str, float]]) -> float | None:
        names = [name for name, _ in entries]
        reached = names[-1] == moment.phase and names.count(moment.phase) == moment.number + 1
        return moment.seconds if reached else None

    entries, status = _run(words, folder, delay, signum=signum, environment=environment)
    return Ended(entries[-1][0], status)


def _run(
    words: Sequence[str],
    folder: Path,
    delay: Callable[[list[tuple[str, float]]], float | None],
    *,
    signum: int = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
) -> tuple[list[tuple[str, float]], int]:
    """Runs it in `folder`; once `delay` gives seconds, it is signalled after these."""
    folder.mkdir(exist_ok=True)
    ours, theirs = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(
        target=_child, args=(list(words), str(folder), theirs, dict(environment or {}))
    )
    process.start()
    theirs.close()
    entries: list[tuple[str, float]] = []
    signalled = False
    try:
        while True:
            entries.append(ours.recv())
            if not signalled and (seconds := delay(entries)) is not None:
                signalled = True
                time.sleep(seconds)
                assert process.pid is not None
                # It may have ended in time.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signum)
    except EOFError:
        process.join()
    assert process.exitcode is not None
    return entries, process.exitcode


def _child(words: list[str], folder: str, phases: Connection, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with open("log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["es2_lightning.train", *words]
    from es2_lightning.train import main

    _announce_phases(phases)
    main()
    phases.send((END, time.monotonic()))


def _announce_phases(phases: Connection) -> None:
    from es2_lightning import training_run
    from es2_lightning.training.atomic_checkpoint_io import AtomicCheckpointIO
    from es2_lightning.training.cache_build import CacheBuild
    from es2_lightning.training.es2_module import ES2Module

    now = ""

    def begin(phase: str) -> str:
        nonlocal now
        before = now
        if phase != now:
            now = phase
            phases.send((phase, time.monotonic()))
        return before

    def announced(
        owner: Any, name: str, phase_of: Callable[..., str], *, returns: bool = False
    ) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before = begin(phase_of(*args))
            found = function(*args, **kwargs)
            if returns:
                begin(before)
            return found

        setattr(owner, name, wrapped)

    announced(training_run, "build_run", lambda *_: LOADING)
    announced(CacheBuild, "setup", lambda *_: CACHE)
    announced(ES2Module, "training_step", lambda module, *_: STAGES[module.schedule.stage_index])
    announced(ES2Module, "validation_step", lambda *_: VALIDATION)
    announced(AtomicCheckpointIO, "save_checkpoint", lambda *_: SAVE, returns=True)
    announced(training_run.TrainingRun, "measure", lambda _, name: EVALUATIONS[name != "base"])
