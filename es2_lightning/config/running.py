"""The command that is running: how its program is started again, and which jobs failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class RunningCommand:
    """One command line.

    Attributes:
        program: What starts it again, without words.
        failures: A sentence for each job that failed.
    """

    program: list[str]
    failures: list[str] = field(default_factory=list)

    def fail(self, job: int | None, words: str, sentence: str) -> None:
        """Note that a job of a sweep, or the run (None), failed."""
        name = "The run" if job is None else f"Job {job}"
        self.failures.append(f"{name} ({words}): {sentence}")


_running: ContextVar[RunningCommand] = ContextVar("running_command")


@contextmanager
def running(command: RunningCommand) -> Iterator[None]:
    """Makes `command` what `running_command` gives inside the block."""
    token = _running.set(command)
    try:
        yield
    finally:
        _running.reset(token)


def running_command() -> RunningCommand:
    """The one inside of which this is called."""
    return _running.get()
