"""Sweeps whose jobs have processes of their own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from .conftest import Done, Start, pids_when_ready, said, wait_until_gone


def the_jobs(root: Path) -> list[Path]:
    assert [path.name for path in (root / "outputs").iterdir()] == ["sweeps"]
    (sweep,) = (root / "outputs" / "sweeps").iterdir()
    return sorted(path for path in sweep.iterdir() if path.is_dir())


@pytest.mark.parametrize("n_jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_four_jobs_of_which_one_fails(n_jobs: int, together: Done, tmp_path: Path) -> None:
    done = together("-m", "seed=1,2,3,4", f"hydra.launcher.n_jobs={n_jobs}", UNLUCKY="2")
    assert done.returncode == 1
    jobs = the_jobs(tmp_path)
    assert [len(said(job)) for job in jobs] == [2, 1, 2, 2]
    told = "Job 1 (seed=2): rank 1 of 2: RuntimeError: a bug"
    assert f"1 of the sweep's jobs failed:\n  {told}" in done.stderr
    for job in (jobs[0], jobs[2], jobs[3]):
        for rank in said(job):
            assert rank["folder"] == str(job) and rank["sweep"] == str(job.parent)
    if n_jobs == 2:
        assert done.stdout.count(": done in") == 3
        assert "    RuntimeError: a bug" in done.stdout
        assert "Printed by rank" not in done.stdout
        assert "Printed by rank 0" in (jobs[0] / "terminal.txt").read_text()


def test_jobs_of_one_device_at_once(together: Done, tmp_path: Path) -> None:
    words = ("trainer.devices=1", "hydra.launcher.n_jobs=2")
    done = together("-m", "seed=1,2", *words)
    assert done.returncode == 0, done.stderr
    first, second = (said(job)[0] for job in the_jobs(tmp_path))
    assert first["pid"] != second["pid"]


def test_ctrl_c_ends_the_sweep(start: Start, tmp_path: Path) -> None:
    words = ("-m", "seed=1,2,3", "fails=hang", "hydra.launcher.n_jobs=2", "trainer.devices=1")
    process = start(*words)
    pids = pids_when_ready(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("Interrupted.") == 1 and "failed" not in err
    assert wait_until_gone(pids)
    assert len(the_jobs(tmp_path)) == 2


@pytest.mark.slow
def test_a_stopped_sweep_says_how_to_go_on(start: Start, tmp_path: Path) -> None:
    words = ("-m", "seed=1,2,3", "fails=wait", "hydra.launcher.n_jobs=2", "trainer.devices=1")
    process = start(*words)
    pids = pids_when_ready(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM" in err and "ckpt_path=last hydra.sweep.dir=outputs/sweeps/" in err
    assert wait_until_gone(pids)
    assert len(the_jobs(tmp_path)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_none_outlives_the_sweep(start: Start, tmp_path: Path) -> None:
    process = start("-m", "seed=1,2", "fails=hang", "hydra.launcher.n_jobs=2")
    pids = pids_when_ready(tmp_path, 4)
    process.kill()
    process.communicate()
    assert wait_until_gone(pids)


def test_a_number_that_is_none(together: Done) -> None:
    done = together("-m", "seed=1,2", "hydra.launcher.n_jobs=0")
    assert done.returncode != 0
    assert "hydra.launcher.n_jobs=0 is not accepted" in done.stderr
