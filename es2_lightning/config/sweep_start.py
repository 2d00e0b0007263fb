"""Where and when the sweep that this process started began; Hydra calls it before the first job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


@dataclass(frozen=True)
class StartedSweep:
    """A sweep.

    Attributes:
        folder: Absolute.
        at: Seconds since 1970.
    """

    folder: Path
    at: float


_started: StartedSweep | None = None


class SweepStart(Callback):
    """Remembers a sweep's folder, whose jobs may run in other processes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra with the sweep's config."""
        global _started
        _started = StartedSweep(Path(config.hydra.sweep.dir).absolute(), time.time())


def take_started_sweep() -> StartedSweep | None:
    """The sweep, once; None where none began."""
    global _started
    taken, _started = _started, None
    return taken
