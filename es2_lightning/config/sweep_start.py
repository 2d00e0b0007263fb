"""Where and when the sweep that this process started began; Hydra calls it before the first job."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from es2_lightning.config import job_record
from es2_lightning.config.same_sweep import remember_sweep

log = logging.getLogger(__name__)


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
        folder = Path(config.hydra.sweep.dir).absolute()
        _started = StartedSweep(folder, time.time())
        if any(folder.glob(f"*/{job_record.FILE}")):
            log.info("The sweep in %s goes on. A new one: hydra.sweep.dir=<a new folder>", folder)
        folder.mkdir(parents=True, exist_ok=True)
        remember_sweep(folder)


def take_started_sweep() -> StartedSweep | None:
    """The sweep, once; None where none began."""
    global _started
    taken, _started = _started, None
    return taken
