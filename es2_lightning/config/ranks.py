"""Which of the processes of a job this one is, as its launcher's environment says.

torchrun, srun and this project's own groups (`process_group`) start the processes; Lightning reads
the same variables.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

# A job name with which Lightning, too, takes SLURM for a terminal in which others are started.
_INTERACTIVE = ("bash", "interactive")
_was_in_group = False


@dataclass(frozen=True)
class Rank:
    """One of a job's processes.

    Attributes:
        number: 0 … world - 1.
        local: Its number on its node.
        world: How many there are.
    """

    number: int
    local: int
    world: int


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """What this process is in its group; None where it stands alone."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    if all(name in environment for name in names):
        return Rank(*(int(environment[name]) for name in names))
    # A batch script has a SLURM_PROCID as well; only srun counts steps.
    if "SLURM_PROCID" not in environment or "SLURM_STEP_ID" not in environment:
        return None
    if environment.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    world = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if int(world) == 1:
        return None
    number, local = environment["SLURM_PROCID"], environment.get("SLURM_LOCALID", "0")
    return Rank(int(number), int(local), int(world))


def remember_group() -> None:
    """To be called before torch.distributed is shut down: this process ends by `leave_group`."""
    global _was_in_group
    _was_in_group = True


def leave_group(status: int) -> None:
    """End a process that torch.distributed ran in, with an exit status; return in any other.

    Without the interpreter's own end: where a thread of gloo's is still about to let go of a Python
    object then, C++ ends the process with SIGABRT ("terminate called without an active
    exception"), and a run that is complete would be told as failed. Exit functions do run.
    """
    distributed = sys.modules.get("torch.distributed")
    runs = distributed and distributed.is_available() and distributed.is_initialized()
    if not (runs or _was_in_group):
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def hush(rank: Rank) -> None:
    """Have a rank beside the first say nothing but warnings and errors, with its number."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    logging.basicConfig(
        level=logging.WARNING,
        format=f"[rank {rank.number}] %(levelname)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.captureWarnings(True)
