"""What the training jobs of a sweep have in common where they run in one process, one by one.

The base model, its reference cache and its measurement are the same for jobs that differ in what
is trained and how. Each job's results are those of a run of its own, bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from es2_lightning.backbone.kept_model import KeptModel
from es2_lightning.config import job

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

Found = TypeVar("Found")


@dataclass
class JobSeconds:
    """How long a job took, and the parts of it that later jobs are spared.

    Attributes:
        loading: The base model.
        finding: What is found out about it: its emergence layer, its refusals.
        cache: Its outputs on the harmless prompts.
        base: Its measurement.
        total: All of the job.
    """

    loading: float = 0.0
    finding: float = 0.0
    cache: float = 0.0
    base: float = 0.0
    total: float = 0.0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time that the `with` takes to a part."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.monotonic() - began)

    @property
    def shared(self) -> float:
        """What later jobs are spared."""
        return self.loading + self.finding + self.cache + self.base


@dataclass
class Sweep:
    """One sweep in this process.

    Attributes:
        folder: Of the sweep.
        model: Its base model.
        evaluations: Folders of evaluations, whose parts later ones take over.
        jobs: Those that finished.
    """

    folder: Path
    model: KeptModel = field(default_factory=KeptModel)
    evaluations: list[Path] = field(default_factory=list)
    jobs: list[JobSeconds] = field(default_factory=list)
    _found: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """What `find` gives; with the same key it is called once.

        Args:
            key: All that it depends on.
            find: Neither draws random numbers of the process nor gives what is changed later.
        """
        if key not in self._found:
            self._found[key] = find()
        found: Found = self._found[key]
        return found

    def finish(self, chat_model: ChatModel, seconds: JobSeconds) -> None:
        """A job is done: keep its base model for the next one."""
        self.jobs.append(seconds)
        self.model.give_back(chat_model)

    def summary(self, *, start: float) -> str:
        """What the jobs took, in a line; the comparison with runs of their own is an estimate.

        Args:
            start: Seconds for imports and checks, which runs of their own take each.
        """
        total = start + sum(job.total for job in self.jobs)
        first = self.jobs[0]
        saved = start * (len(self.jobs) - 1)
        saved += sum(max(0.0, first.shared - job.shared) for job in self.jobs)
        words = f"{len(self.jobs)} jobs took {_shown(total)}, {_shown(total / len(self.jobs))} each"
        if len(self.jobs) == 1:
            return f"{words}."
        return (
            f"{words}. What the first one did served the others: imports and checks "
            f"({_shown(start)}), loading the base model ({_shown(first.loading)}), its emergence "
            f"layer and refusals ({_shown(first.finding)}), its reference cache "
            f"({_shown(first.cache)}), its measurement ({_shown(first.base)}). {_shown(saved)} "
            f"were saved: runs of their own would have taken {(total + saved) / total:.2f} times "
            "as long (an estimate from the first one's times)."
        )


_current: Sweep | None = None


def current_sweep() -> Sweep | None:
    """The sweep that the running job is part of; None for a single run."""
    global _current
    folder = job.sweep_dir()
    if folder is None:
        return None
    if _current is None or _current.folder != folder:
        _current = Sweep(folder)
    return _current


def end_sweep() -> Sweep | None:
    """Forget the sweep, with its model; gives it, if one ran in this process."""
    global _current
    ended, _current = _current, None
    return ended


def _shown(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:.2g} h"
