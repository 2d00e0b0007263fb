"""Training with several devices, by the command that users type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .conftest import SMALL

FAILING = """
import lightning as L

class Unlucky(L.Callback):
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def on_train_start(self, trainer, module) -> None:
        if self.weight == 0.5 and trainer.global_rank == 1:
            raise RuntimeError("out of luck")
"""
ADAPTER = Path("adapter") / "adapter_model.safetensors"


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "unlucky.py").write_text(FAILING)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "es2_lightning.train", *words, *SMALL, "evaluate=none"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_four_jobs_of_two_processes_of_which_one_fails(n_jobs: int, tmp_path: Path) -> None:
    done = train(
        tmp_path,
        "-m",
        "trainer=ddp",
        "loss.kl_weight=0.1,0.5,1,2",
        "+callbacks.unlucky={_target_: unlucky.Unlucky, weight: '${loss.kl_weight}'}",
        f"hydra.launcher.n_jobs={n_jobs}",
    )
    assert done.returncode == 1, done.stderr
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["sweeps"]
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert [(sweep / str(n) / ADAPTER).exists() for n in range(4)] == [True, False, True, True]
    assert "1 of the sweep's jobs failed:\n  Job 1 (" in done.stderr
    assert "rank 1 of 2: RuntimeError: out of luck" in done.stderr
    assert "4 jobs: 3 finished, 1 failed" in done.stdout


@pytest.mark.slow
def test_a_job_does_as_a_run_of_its_own(tmp_path: Path) -> None:
    words = ("trainer=ddp", "loss.kl_weight=0.5")
    done = train(tmp_path, *words, "hydra.run.dir=outputs/alone")
    assert done.returncode == 0, done.stderr
    done = train(tmp_path, "-m", *words, "hydra.launcher.n_jobs=2", "hydra.sweep.dir=outputs/sweep")
    assert done.returncode == 0, done.stderr
    alone = load_file(tmp_path / "outputs" / "alone" / ADAPTER)
    job = load_file(tmp_path / "outputs" / "sweep" / "0" / ADAPTER)
    assert alone.keys() == job.keys()
    assert all(torch.equal(alone[name], job[name]) for name in alone)
