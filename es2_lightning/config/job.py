"""What a running job may ask about itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

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


def overrides() -> list[str]:
    """What was set on the command line, or by the sweep, for this job."""
    return list(HydraConfig.get().overrides.task)
