"""Asked to stop, a run saves at a step's end, says how to go on, and then goes on exactly."""

from __future__ import annotations

import random
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch

from .conftest import SMALL
from .killed_runs import (
    CACHE,
    VALIDATION,
    Ended,
    Moment,
    Timeline,
    run_killed_at,
    whole_run,
)
from .test_kills import training_metrics

WORDS = (
    *SMALL,
    "evaluate=none",
    "schedule.max_steps=4",
    # Nothing is written but what a signal asks for.
    "callbacks.checkpoint.every_n_train_steps=1000",
    "model.lora.lora_dropout=0.1",
    "trainer.accumulate_grad_batches=2",
)
ADAPTER = "adapter/adapter_model.safetensors"
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "es2",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "localhost",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
"""What srun tells the one process of its step."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Timeline]:
    folder = tmp_path_factory.mktemp("whole")
    timeline = whole_run((*WORDS, "hydra.run.dir=run"), folder)
    return folder / "run", timeline


def saved_steps(run: Path) -> int:
    return int(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"])


@pytest.mark.slow
def test_a_slurm_job_whose_time_is_up_is_requeued_and_goes_on_by_itself(
    whole: tuple[Path, Timeline], tmp_path: Path
) -> None:
    called = tmp_path / "called"
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(called))}\n')
    scontrol.chmod(0o755)
    slurm = SLURM | {"PATH": f"{scontrol.parent}:/usr/bin:/bin"}
    moment = whole[1].draw("stage 1", random.Random(2))
    ended = run_killed_at(moment, WORDS, tmp_path, signum=signal.SIGUSR1, environment=slurm)
    log = (tmp_path / "log").read_text()
    assert ended.status == 128 + signal.SIGUSR1, log
    assert called.read_text() == "requeue 4711\n"
    (run,) = tmp_path.glob("outputs/*/")
    steps = saved_steps(run)
    # Later than the drawn moment says, where the run is faster than the one that was measured.
    assert 1 <= steps < 8 and not (run / "adapter").exists()
    assert f"Stopped by SIGUSR1 after {steps} optimizer steps" in log
    assert f"ckpt_path=last hydra.run.dir=outputs/{run.name}" in log and "is requeued" in log

    whole_run(WORDS, tmp_path, slurm | {"SLURM_RESTART_COUNT": "1"})
    assert list(tmp_path.glob("outputs/*/")) == [run]
    assert f"Going on after {steps} optimizer steps" in (tmp_path / "log").read_text()
    assert (run / ADAPTER).read_bytes() == (whole[0] / ADAPTER).read_bytes(), moment
    assert training_metrics(run) == training_metrics(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "seed"),
    [(phase, seed) for phase in ("stage 1", "stage 2", VALIDATION) for seed in (1, 2, 3)],
)
def test_sigterm(phase: str, seed: int, whole: tuple[Path, Timeline], tmp_path: Path) -> None:
    words = (*WORDS, "hydra.run.dir=run")
    moment = whole[1].draw(phase, random.Random(seed))
    if phase == VALIDATION:  # Not the one before training, of which nothing is saved.
        lengths = whole[1].lengths(VALIDATION)
        moment = Moment(VALIDATION, 1, random.Random(seed).uniform(0, lengths[1] / 2))
    ended = run_killed_at(moment, words, tmp_path, signum=signal.SIGTERM)
    log = (tmp_path / "log").read_text()
    assert ended.status == 128 + signal.SIGTERM, (moment, log)
    told = re.search(r"Stopped by SIGTERM(?: after (\d+) optimizer steps)?", log)
    # Without a number where the training was over by then.
    assert told is not None and int(told[1] or 8) == saved_steps(tmp_path / "run"), (moment, log)
    whole_run((*words, "ckpt_path=last"), tmp_path)
    assert (tmp_path / "run" / ADAPTER).read_bytes() == (whole[0] / ADAPTER).read_bytes(), moment
    assert training_metrics(tmp_path / "run") == training_metrics(whole[0])


def test_where_there_is_nothing_to_save_it_stops_at_once(
    whole: tuple[Path, Timeline], tmp_path: Path
) -> None:
    moment = Moment(CACHE, 0, 0.0)
    words = (*WORDS, "hydra.run.dir=run")
    assert run_killed_at(moment, words, tmp_path, signum=signal.SIGTERM) == Ended(CACHE, 143)
    assert "Stopped by SIGTERM. To go on:" in (tmp_path / "log").read_text()
    assert not (tmp_path / "run/checkpoints").exists()
