"""The command of `group_app`, as a user starts it, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

APP = Path(__file__).parent / "group_app.py"
CONF = """
defaults:
  - together_schema
  - _self_
  - override hydra/launcher: es2
trainer: {accelerator: cpu, devices: 2}
hydra:
  run: {dir: "${run_folder:${ckpt_path}}"}
  sweep: {dir: "${sweep_folder:}", subdir: "${hydra.job.num}"}
  job_logging:
    formatters: {plain: {format: "%(message)s"}}
    handlers: {console: {formatter: plain}}
"""
Start = Callable[..., "subprocess.Popen[str]"]
Done = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command, or another one that starts it."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "together.yaml").write_text(CONF)
    started: list[subprocess.Popen[str]] = []

    def run(
        *words: str, command: tuple[str, ...] = (sys.executable,), **environment: str
    ) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        process = subprocess.Popen(
            [*command, str(APP), *words],
            cwd=tmp_path,
            env={**inherited, "TOGETHER_CONF": str(conf), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def together(start: Start) -> Done:
    """Runs it to its end."""

    def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        process = start(*words, **more)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


def said(folder: Path) -> list[dict[str, Any]]:
    """What the ranks wrote into a job's folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank_*.json"))]


def pids_when_ready(root: Path, count: int) -> list[int]:
    """The processes that wait, when there are so many."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = [int(path.name.removeprefix("ready_")) for path in root.rglob("ready_*")]
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} of {count} processes are there")


def wait_until_gone(pids: list[int]) -> bool:
    """Whether the processes end within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not any(_lives(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # Whose parent has not noticed yet.
