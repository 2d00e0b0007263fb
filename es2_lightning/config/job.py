"""What a running job may ask about itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

SEVERAL = ("attack", "judge", "logger")
"""Config groups of which a config holds several choices."""
_check_seconds = 0.0
_composed: ContextVar[DictConfig] = ContextVar("composed_config")


@contextmanager
def composed(config: DictConfig) -> Iterator[None]:
    """Makes `config` what `composed_config` gives inside the block."""
    token = _composed.set(config)
    try:
        yield
    finally:
        _composed.reset(token)


def composed_config() -> DictConfig:
    """The job's config with its interpolations as they are written: what `save_resolved` takes."""
    return _composed.get()


def output_dir() -> Path:
    """The folder into which the job writes, absolute."""
    return Path(HydraConfig.get().runtime.output_dir)


def count_check(seconds: float) -> None:
    """Adds to how long the check of this process's first job took, imports included."""
    global _check_seconds
    _check_seconds += seconds


def check_seconds() -> float:
    """How long it took; 0 in a process that a launcher started, which checks none beforehand."""
    return _check_seconds


def set_output_dir(folder: Path) -> None:
    """Says into which folder the job writes: to a process for which another has decided it."""
    config: Any = HydraConfig.instance().cfg
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = str(folder)
        if config.hydra.mode == RunMode.RUN:
            config.hydra.run.dir = str(folder)


def sweep_dir() -> Path | None:
    """The folder of the sweep that the job is part of, absolute; None for a single run."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).absolute() if hydra.mode == RunMode.MULTIRUN else None


def choices() -> dict[str, str]:
    """The selected choice of each config group, without Hydra's own, in the order of their names.

    A group of which several choices are selected has them joined by commas; one without a choice
    is left out.
    """
    selected = {}
    for group, choice in sorted(HydraConfig.get().runtime.choices.items()):
        if choice is None or group.startswith("hydra/"):
            continue
        selected[group] = choice if isinstance(choice, str) else ",".join(choice)
    return selected


def selected(config: Any) -> str:
    """The selected choices in a line, the model first, as they are typed.

    Args:
        config: What the command received: groups with several choices stand in it by name, since
            Hydra does not keep a list of them.
    """
    chosen = dict(choices())
    for group in SEVERAL:
        if isinstance(of_group := getattr(config, group, None), dict):
            # What is no choice is a word that all of them share, such as logger.offline.
            names = [name for name, node in of_group.items() if isinstance(node, dict)]
            chosen[group] = f"[{','.join(names)}]"
    groups = sorted(chosen, key=lambda group: (group != "model", group))
    return "  ".join(f"{group}={chosen[group]}" for group in groups)


def overrides() -> list[str]:
    """What was set on the command line, or by the sweep, for this job."""
    return list(HydraConfig.get().overrides.task)
