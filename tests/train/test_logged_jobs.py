"""Runs that share a project: jobs of a sweep, several processes, other methods."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from es2_lightning.logged_keys import ARTIFACTS, KEYS, TABLES, described

from ..offline_wandb import OfflineRun, offline_runs
from .conftest import SMALL, TINY_EVALUATION, Train


class Unlucky(L.Callback):
    """Fails in one job of a sweep."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.weight == 0.5 and trainer.global_rank == trainer.world_size - 1:
            raise RuntimeError("out of luck")


UNLUCKY = (
    "loss.kl_weight=0.1,0.5",
    "+callbacks.unlucky._target_=tests.train.test_logged_jobs.Unlucky",
    "+callbacks.unlucky.weight=${loss.kl_weight}",
    "layers=single",
    "logger=[wandb]",
    "logger.offline=true",
    "hydra.sweep.dir=a-sweep",
)


def both_jobs(folder: Path) -> list[OfflineRun]:
    found = offline_runs(folder)
    assert len({run.run.run_id for run in found}) == len(found) == 2
    assert [run.run.display_name for run in found] == ["a-sweep/0", "a-sweep/1"]
    assert {run.run.run_group for run in found} == {"a-sweep"}
    assert [run.config["loss"]["kl_weight"] for run in found] == [0.1, 0.5]
    assert [run.exit_code for run in found] == [0, 1]
    assert len(found[0].metrics["train/kl"]) == 2
    return found


def test_each_job_of_a_sweep_is_a_run_that_ends(train: Train, tmp_path: Path) -> None:
    train("-m", *SMALL, *UNLUCKY, "evaluate=none", status=1)
    first, second = both_jobs(tmp_path / "a-sweep")
    assert "train/loss" in first.metrics and first.artifact("adapter").name
    assert not [a for a in second.artifacts if a.type == "adapter"]


def test_what_wandb_refuses_is_told_before_the_weights_load(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def init(**_: Any) -> None:
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    train(*SMALL, "logger=wandb", status=1)
    shown = capsys.readouterr()
    assert "Error: logger=wandb: No API key configured" in shown.err
    assert "logger.offline=true" in shown.err and "Loading" not in shown.out


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path: Path) -> None:
    program = (sys.executable, "-m", "es2_lightning.train")
    done = subprocess.run(
        [
            *program,
            "-m",
            *SMALL,
            *TINY_EVALUATION[:3],
            *UNLUCKY,
            "trainer=ddp",
            "attack=[direct]",
            "capability=none",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "rank 1 of 2: RuntimeError: out of luck" in done.stderr, done.stderr[-3000:]
    assert "2 jobs: 1 finished, 1 failed" in done.stdout
    first, _ = both_jobs(tmp_path / "a-sweep")
    assert {"train/tokens_per_second", "validation/loss"} <= first.metrics.keys()
    assert any(key.startswith("evaluation/tuned/direct/") for key in first.metrics)
    assert first.media.keys() >= TABLES.keys()
    assert {a.type for a in first.artifacts} >= ARTIFACTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stl", "circuit_breakers"])
def test_the_keys_of_other_methods_are_documented(train: Train, method: str) -> None:
    words = ("evaluate=none", "callbacks.display.every_n_steps=1")
    folder = train(*SMALL, f"method={method}", *words)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = {key for row in rows for key in row} - {"step"}
    assert [key for key in logged if described(key) is None] == []
    wanted = {key.name for key in KEYS if key.method == method}
    assert wanted and wanted <= logged
    assert re.search(r"step 1 of \d+, loss \S+, \S+ tokens/s", (folder / "train.log").read_text())
