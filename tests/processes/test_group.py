"""A job for several devices: a process for each, one folder, one end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from .conftest import Done, Start, pids_when_ready, said, wait_until_gone


def the_run(root: Path) -> Path:
    (folder,) = (root / "outputs").iterdir()
    return folder


def test_two_processes_share_a_run(together: Done, tmp_path: Path) -> None:
    done = together("note=${now:%f}")
    assert done.returncode == 0, done.stderr
    folder = the_run(tmp_path)
    ranks = said(folder)
    assert len({rank["pid"] for rank in ranks}) == 2
    assert {rank["folder"] for rank in ranks} == {str(folder)}
    assert ranks[0]["note"] == ranks[1]["note"] != ""
    # The first alone writes and prints.
    log = (folder / "group_app.log").read_text()
    assert "Logged by rank 0" in log and "rank 1" not in log
    assert "Printed by rank 0" in done.stdout and "rank 1" not in done.stdout
    assert done.stderr == "[rank 1] WARNING: Warned by rank 1\n"
    assert (folder / ".hydra" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [
        ("mistake", 1, "Rank 1 of 2 failed, and the others were ended.\nError: seed 7 is unlucky"),
        pytest.param("bug", 1, "RuntimeError: a bug\nin two lines", marks=pytest.mark.slow),
        pytest.param("kill", 1, "rank 1 of 2 was ended by SIGKILL", marks=pytest.mark.slow),
        pytest.param("exit", 3, "", marks=pytest.mark.slow),
    ],
)
def test_one_fails_and_all_end(
    how: str, status: int, told: str, together: Done, tmp_path: Path
) -> None:
    done = together(f"fails={how}")
    assert done.returncode == status
    assert told in done.stderr
    # What the others died of is not told.
    assert "Connection" not in done.stderr and done.stderr.count("Error: ") <= 1
    assert said(the_run(tmp_path)) == []


def test_ctrl_c_ends_all(start: Start, tmp_path: Path) -> None:
    process = start("fails=hang")
    pids = pids_when_ready(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("Interrupted.\n") and err.count("Interrupted.") == 1
    assert wait_until_gone(pids)


@pytest.mark.slow
def test_signals_reach_all(start: Start, tmp_path: Path) -> None:
    process = start("fails=wait")
    pids = pids_when_ready(tmp_path, 2)
    process.send_signal(signal.SIGUSR1)
    folder = the_run(tmp_path)
    while not all((folder / f"usr1_{pid}").exists() for pid in pids):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 5
    assert wait_until_gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_none_outlives_the_command(start: Start, tmp_path: Path) -> None:
    process = start("fails=hang")
    pids = pids_when_ready(tmp_path, 2)
    process.kill()
    process.communicate()
    assert wait_until_gone(pids)


def test_one_device_is_no_group(together: Done, tmp_path: Path) -> None:
    done = together("trainer.devices=1")
    assert done.returncode == 0, done.stderr
    (alone,) = said(the_run(tmp_path))
    assert alone["threads"] is None


@pytest.mark.slow
def test_a_user_s_own_ranks(together: Done, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    # Each would make a folder of its own.
    done = together("hydra.run.dir=runs/${now:%f}", command=torchrun)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    ranks = said(folder)
    assert [rank["folder"] for rank in ranks] == [str(folder)] * 2
    assert "rank 1" not in (folder / "group_app.log").read_text()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_ranks_with_different_configs_stop(together: Done, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = together("note=${now:%f}", command=torchrun)
    assert done.returncode != 0
    assert "were started with different configs: rank 1 has note=" in done.stderr
    assert said(the_run(tmp_path)) == []


def test_a_sweep_inside_ranks_is_refused(together: Done, tmp_path: Path) -> None:
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    done = together("-m", "seed=1,2", **ranks)
    assert done.returncode == 2
    assert "Accepted: -m without them" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_slurm_s_own_ranks(start: Start, tmp_path: Path) -> None:
    """As srun starts them, where rank 0 keeps what they agree by."""
    job = str(os.getpid() % 10000)
    processes = [
        start(
            "hydra.run.dir=runs/${now:%f}",
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
            SLURM_STEP_ID="0",
            SLURM_NTASKS="2",
            SLURM_JOB_ID=job,
            SLURM_NODELIST="localhost",
        )
        for rank in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    # The small command itself knows torchrun's variables alone.
    assert [alone["folder"] for alone in said(folder)] == [str(folder)]
