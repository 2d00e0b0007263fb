"""A job's processes: started together, told of signals together, and ended together.

They get the environment that torchrun would give them, so Lightning takes them for its own. Not
torchrun itself: it ends on SIGUSR1, kills 30 seconds after SIGTERM whoever is still saving a
checkpoint, leaves the processes alive when it is killed, and needs seconds to start.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from es2_lightning.config.handed_job import Outcome, hand_over, outcome
from es2_lightning.errors import JobFailed

FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if hasattr(signal, name)
)
GRACE = 10.0
"""Seconds that the others have once one has failed: they may be waiting for it for ever."""
GRACE_AFTER_SIGNAL = 300.0
"""The same where all were told to stop, and one of them may still be saving a checkpoint."""
_POLL = 0.05


@dataclass(eq=False)  # A comparison of configs would resolve them.
class ProcessGroup:
    """The processes of one job.

    Attributes:
        program: The command without its words, `[python, -m, es2_lightning.train]`.
        config: The job's.
        hydra: Hydra's own; None: it stands in the config, and one process runs the job as Hydra
            would.
        processes: How many share the job.
        words: Shown by `ps`; the config is what counts.
        environment: Beside this process's own.
        terminal: A file for what they print; None: where this process prints.
    """

    program: Sequence[str]
    config: DictConfig
    hydra: DictConfig | None = None
    processes: int = 1
    words: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    terminal: Path | None = None
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _hand: Path | None = None
    _kill_at: float = float("inf")
    _stopping: bool = False
    _killed: set[int] = field(default_factory=set)

    @property
    def is_of_ranks(self) -> bool:
        """Whether its processes share a job that is under way in this one."""
        return self.hydra is not None

    def start(self) -> None:
        """Start them all."""
        self._hand = Path(tempfile.mkdtemp(prefix="es2_job_"))
        handed = hand_over(self._hand, self.config, self.hydra)
        shared = {**os.environ, **handed, **self.environment}
        shared.setdefault("OMP_NUM_THREADS", str(threads_each(self.processes)))
        if self.is_of_ranks:
            shared |= _rendezvous(self.processes)
        out = self.terminal.open("ab") if self.terminal is not None else None
        try:
            for rank in range(self.processes):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if self.is_of_ranks else {}
                self._running.append(
                    subprocess.Popen(
                        [*self.program, *self.words],
                        env={**shared, **own},
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT if out is not None else None,
                        # Ctrl-C in the terminal reaches this process alone, which forwards it.
                        start_new_session=True,
                    )
                )
        except BaseException:
            self.kill()
            raise
        finally:
            if out is not None:
                out.close()

    def is_running(self) -> bool:
        """Whether any of them is; ends those that wait for one that failed."""
        codes = [process.poll() for process in self._running]
        if None not in codes:
            return False
        if any(codes) and self._kill_at == float("inf"):
            grace = GRACE_AFTER_SIGNAL if self._stopping else GRACE
            self._kill_at = time.monotonic() + grace
        if time.monotonic() >= self._kill_at:
            self.kill()
        return True

    def send(self, number: int) -> None:
        """Send a signal to those that run."""
        self._stopping = True
        for process in self._running:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        """End those that run, and what they started."""
        for rank, process in enumerate(self._running):
            if process.poll() is None:
                self._killed.add(rank)
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    process.kill()
                process.wait()

    def result(self) -> Any:
        """What the job returned, once none is running.

        Raises:
            JobFailed: One of them failed: the first, since others fail for want of it.
            KeyboardInterrupt: They were interrupted.
            SystemExit: They ended with a status of their own.
        """
        assert self._hand is not None
        codes = [process.returncode for process in self._running]
        told = [outcome(self._hand, rank=rank) for rank in range(len(codes))]
        shutil.rmtree(self._hand, ignore_errors=True)
        if not any(codes):
            return told[0].returned if told[0] is not None else None
        raise self._cause(codes, told)

    def _cause(self, codes: list[int], told: list[Outcome | None]) -> BaseException:
        by_others = [rank for rank, code in enumerate(codes) if code < 0]
        # One that loses another may abort: that is no cause while another gives one.
        unexpected = sorted(
            (codes[rank] == -signal.SIGABRT, rank) for rank in by_others if rank not in self._killed
        )
        failed = [(end.time, rank) for rank, end in enumerate(told) if end and end.error]
        if any(end is not None and end.interrupted for end in told):
            return KeyboardInterrupt()
        if unexpected and not self._stopping and not (unexpected[0][0] and failed):
            rank = unexpected[0][1]
            name = signal.Signals(-codes[rank]).name
            hint = " (out of memory?)" if -codes[rank] == signal.SIGKILL else ""
            return JobFailed(f"{self._named(rank)} was ended by {name}{hint}")
        if failed:
            rank = min(failed)[1]
            end = told[rank]
            assert end is not None and end.error is not None
            if end.status:
                return SystemExit(end.status)
            if not self.is_of_ranks:
                return JobFailed(end.error, end.report)
            return JobFailed(
                f"rank {rank} of {self.processes}: {end.error}",
                f"Rank {rank} of {self.processes} failed, and the others were ended.\n{end.report}",
            )
        if by_others:  # Told to stop, or killed with the one that left without a word.
            codes = [code for code in codes if code > 0] or [128 - codes[by_others[0]]]
        return SystemExit(max(codes))

    def _named(self, rank: int) -> str:
        if not self.is_of_ranks:
            return "its process"
        return f"rank {rank} of {self.processes}"


@contextmanager
def forwarding(groups: Iterable[ProcessGroup]) -> Iterator[list[int]]:
    """Inside the `with`, signals go to the groups; gives those that came. A second Ctrl-C kills.

    Args:
        groups: May change meanwhile.
    """
    came: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and number in came
        came.append(number)
        for group in list(groups):
            if again:
                group.kill()
            else:
                group.send(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_group(group: ProcessGroup) -> Any:
    """Start it, wait until it has ended, and give what the job returned.

    Raises:
        JobFailed: A process failed.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: The processes ended with a status of their own, as after a SIGTERM.
    """
    with forwarding([group]) as came:
        try:
            group.start()
            while group.is_running():
                time.sleep(_POLL)
        finally:
            group.kill()
    if signal.SIGINT in came:
        _drop(group)
        raise KeyboardInterrupt
    return group.result()


def _drop(group: ProcessGroup) -> None:
    with suppress(JobFailed, KeyboardInterrupt, SystemExit):
        group.result()


def program_of(module: str) -> list[str]:
    """The command that runs a module again, which may be the one that is running."""
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        if spec is None:
            return [sys.executable, str(Path(str(main.__file__)).resolve())]
        module = spec.name
    return [sys.executable, "-m", module]


def threads_each(processes: int) -> int:
    """Threads for each of several processes, so that they do not fight for the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // processes)


def _rendezvous(processes: int) -> dict[str, str]:
    """What torchrun would tell its processes, on this machine."""
    return {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        # By which Lightning sees that the processes are there, also within a SLURM allocation.
        "TORCHELASTIC_RUN_ID": "es2",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }


def _free_port() -> int:
    # Below the ports that systems give to whoever asks for any: another program's connection
    # cannot take it before the first process listens there.
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
