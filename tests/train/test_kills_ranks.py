"""Two processes, started by the command itself and killed: started again they end alike."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import SMALL
from .test_kills import assert_ends_alike

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc"),
]
ROOT = Path(__file__).parents[2]
PHASES = {
    "loading": b"Loading",
    "cache build": b"Layers to separate",
    "stage 1": b"Reference cache:",
    "stage 2": b"Stage 1 of 2",
    "end": b"Stage 2 of 2",
}
"""What the log says when each begins."""
SAVE = "save"
WORDS = (
    *SMALL,
    "evaluate=none",
    "data.harmless_per_batch=3",
    "schedule.max_steps=6",
    "callbacks.checkpoint.every_n_train_steps=2",
    "model.lora.lora_dropout=0.1",
    "trainer.accelerator=cpu",
    "trainer.accumulate_grad_batches=2",
    "ckpt_path=last",
    "hydra.run.dir=run",
)


@dataclass
class Command:
    """A running command, and where in the log its own lines begin."""

    process: subprocess.Popen[bytes]
    folder: Path
    began: int

    @classmethod
    def start(cls, words: tuple[str, ...], folder: Path) -> Command:
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "es2_lightning.train", *words],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )
            return cls(process, folder, log.tell())

    def reaches(self, phase: str) -> bool:
        """Waits for a phase; false if the command ended before."""
        while self.process.poll() is None:
            if self._has_begun(phase):
                return True
            time.sleep(0.002)
        return False

    def end(self) -> None:
        assert self.process.wait(300) == 0, (self.folder / "log").read_text()

    def pids(self) -> list[int]:
        """The process that was started, and those that it started, which are the ranks."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def _has_begun(self, phase: str) -> bool:
        if phase == SAVE:
            return any(self.folder.glob("run/checkpoints/.last.ckpt.*"))
        return PHASES[phase] in (self.folder / "log").read_bytes()[self.began :]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_killed_again_and_again(strategy: str, seed: int, tmp_path: Path) -> None:
    words = (*WORDS, f"trainer={strategy}")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = Command.start(words, whole)
    at = [time.monotonic() for phase in PHASES if command.reaches(phase)]
    command.end()
    assert len(at) == len(PHASES), (whole / "log").read_text()
    lengths = dict(zip(PHASES, (after - before for before, after in pairwise(at)), strict=False))
    rng = random.Random(seed)
    told = []
    for phase in ("loading", "cache build", "stage 1", "stage 2", SAVE):
        command = Command.start(words, killed)
        if not command.reaches(phase):
            break  # All is done.
        time.sleep(wait := rng.uniform(0, lengths.get(phase, 0.01)))
        pids = command.pids()
        victim = rng.randrange(len(pids))
        os.kill(pids[victim], signal.SIGKILL)
        status = command.process.wait(120)
        told.append((phase, wait, victim, status))
        assert all(_is_gone(pid) for pid in pids), told
    print(told)
    assert len(told) >= 3, told
    Command.start(words, killed).end()
    assert_ends_alike(killed, whole, told)


def _is_gone(pid: int) -> bool:
    """Whether a process ends, which it does once the one that started it has."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
