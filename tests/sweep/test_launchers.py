"""Hydra's own launchers as users select them: jobs in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from es2_lightning.config import job_record

from .conftest import TOY_SWEEP

LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ["hydra/launcher=joblib"]),
    "submitit": (
        "hydra_plugins.hydra_submitit_launcher",
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=2"],
    ),
}


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_jobs_of_other_processes_are_recorded_and_not_run_again(
    name: str, toy_sweep: ModuleType, tmp_path: Path
) -> None:
    module, words = LAUNCHERS[name]
    if not is_installed(module):
        pytest.skip(f"pip install 'es2-lightning[{name}]'")
    (tmp_path / "bad.txt").write_text("2")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(TOY_SWEEP), "-m", "x=1,2,3", *words],
            cwd=tmp_path,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = run(*words)
    assert done.returncode == 1, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    records = job_record.records(sweep)
    assert [record.status for record in records.values()] == ["finished", "failed", "finished"]
    assert all(record.pid != os.getpid() for record in records.values())
    assert sorted((sweep / "told.txt").read_text().split()) == ["0", "1", "2"]
    assert (tmp_path / "ended.txt").read_text() == str(sweep)
    (tmp_path / "bad.txt").unlink()
    (tmp_path / "ran.txt").unlink()
    done = run(*words, "ckpt_path=last")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran.txt").read_text() == "1 2 last\n"
