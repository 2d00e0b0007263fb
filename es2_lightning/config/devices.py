"""How many processes a job needs, and which devices each of several jobs at once gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from es2_lightning.errors import UserError

_ALL = ("auto", "-1", -1)


def processes_of(trainer: Mapping[str, Any]) -> int:
    """How many processes share a job on this machine: one for each device.

    Args:
        trainer: Lightning's own words: `devices`, `accelerator`.

    Raises:
        UserError: `devices` says no number; there are several nodes.
    """
    if (nodes := trainer.get("num_nodes", 1)) != 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: the processes on other machines have to be started there. "
            f"Accepted: the same words after `torchrun --nnodes={nodes} --nproc-per-node=<devices> "
            "--rdzv-backend=c10d --rdzv-endpoint=<host>:<port> -m es2_lightning.train` on each, or "
            f"after `srun --nodes={nodes} --ntasks-per-node=<devices> python -m "
            "es2_lightning.train`; trainer.num_nodes=1 for one machine."
        )
    devices = trainer.get("devices", 1)
    if devices in _ALL:
        return 1 if on_cpu(trainer) else max(1, _gpus())
    if isinstance(devices, str):
        devices = [part for part in devices.split(",") if part] if "," in devices else devices
    try:
        number = len(devices) if isinstance(devices, (list, tuple)) else int(devices)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(devices, bool):
        raise UserError(
            f"trainer.devices={devices} is not accepted. Accepted: a whole number ≥ 1, a list of "
            "GPU numbers, or auto for all."
        )
    return number


def on_cpu(trainer: Mapping[str, Any]) -> bool:
    """Whether a job trains on the CPU."""
    return trainer.get("accelerator", "auto") == "cpu" or (
        trainer.get("accelerator", "auto") == "auto" and _gpus() == 0
    )


def shares(n_jobs: int) -> list[list[str]]:
    """The GPUs that each of several jobs at once gets; without GPUs, nothing for each.

    Raises:
        UserError: There are GPUs, but fewer than jobs.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [part for part in listed.split(",") if part] if listed else []
    gpus = gpus or [str(number) for number in range(_gpus())]
    if gpus and len(gpus) < n_jobs:
        raise UserError(
            f"hydra.launcher.n_jobs={n_jobs}: there are {len(gpus)} GPUs, and jobs that run at "
            f"once share none. Accepted: 1 … {len(gpus)}, or trainer.accelerator=cpu."
        )
    each = len(gpus) // n_jobs
    return [gpus[each * number : each * (number + 1)] for number in range(n_jobs)]


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
