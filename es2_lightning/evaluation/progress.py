"""How an evaluation tells how far it is."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many of its items are done, and how many there are."""
WAYS = ("auto", "bar", "plain", "none")
"""How it is shown: `progress=…`."""
log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0


def silent(_stage: str, _done: int, _total: int) -> None:
    """Tells nobody."""


@contextmanager
def rich_progress() -> Iterator[Progress]:
    """A bar on the terminal for each stage, with the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeRemainingColumn()) as bars:
        tasks: dict[str, object] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield show


@contextmanager
def plain_progress(seconds: float = SECONDS_BETWEEN_LINES) -> Iterator[Progress]:
    """Lines in the log: when a stage is through, and every so many seconds before.

    Args:
        seconds: Between two lines of a stage.
    """
    began: dict[str, float] = {}
    told: dict[str, float] = {}
    # Many stages first tell when they are through: they began when the last one was.
    last = time.monotonic()

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        first = began.setdefault(stage, last)
        # A stage that is through says so once.
        through = done >= total
        if told.get(stage) == math.inf or (not through and now - told.get(stage, first) < seconds):
            return
        told[stage] = math.inf if through else now
        last = now
        log.info("%s: %d of %d, %.3g s", stage, done, total, now - first)

    yield show


@contextmanager
def no_progress() -> Iterator[Progress]:
    """Tells nobody."""
    yield silent


def progress_of(way: str) -> Callable[[], AbstractContextManager[Progress]]:
    """What `progress=…` asks for.

    Args:
        way: `bar`, `plain`, `none`, or `auto`: bars where stdout is a terminal, else lines.
    """
    if way == "auto":
        from rich.console import Console

        way = "bar" if Console().is_terminal else "plain"
    ways: dict[str, Callable[[], AbstractContextManager[Progress]]] = {
        "bar": rich_progress,
        "plain": plain_progress,
        "none": no_progress,
    }
    return ways[way]
