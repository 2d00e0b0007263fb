"""The command as a user meets it: messages, exit status, folders."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_run_leaves_its_folder(toy_command: Run, tmp_path: Path) -> None:
    done = toy_command("model=mistral", "note=${oc.env:SECRET}", SECRET="do not write me")
    assert done.returncode == 0, done.stderr
    assert "kl_weight=0.5" in done.stdout
    assert "'model': 'mistral'" in done.stdout and "experiment" not in done.stdout
    (folder,) = (tmp_path / "outputs").iterdir()
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["note"] == "${oc.env:SECRET}"
    assert saved["model"]["name_or_path"] == "mistralai/Mistral"
    written = [file.read_text() for file in folder.rglob("*") if file.is_file()]
    assert len(written) >= 4 and not any("do not write me" in text for text in written)


def test_a_mistake_is_one_line_and_makes_no_folder(toy_command: Run, tmp_path: Path) -> None:
    done = toy_command("loss.kl_wieght=1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "Did you mean loss.kl_weight?" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_users_mistake_while_running_has_no_traceback(toy_command: Run) -> None:
    done = toy_command("seed=7")
    assert done.returncode == 1
    assert done.stderr == "Error: seed 7 is unlucky\n"


def test_a_bug_has_a_traceback(toy_command: Run) -> None:
    done = toy_command("seed=8")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and done.stderr.endswith("RuntimeError: a bug\n")


def test_interrupted(toy_command: Run) -> None:
    done = toy_command("seed=9")
    assert done.returncode == 130
    assert done.stderr == "Interrupted.\n"


def test_a_sweep_goes_on_after_a_failed_job(toy_command: Run, tmp_path: Path) -> None:
    done = toy_command("-m", "seed=1,7,8,2")
    assert done.returncode == 1
    assert [f"seed={seed}\n" in done.stdout for seed in (1, 7, 8, 2)] == [True] * 4
    assert "2 of the sweep's jobs failed" in done.stderr
    assert "Job 1 (seed=7): seed 7 is unlucky" in done.stderr
    assert "Job 2 (seed=8): RuntimeError: a bug" in done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert sorted(path.parent.name for path in sweep.glob("*/config.yaml")) == ["0", "3"]


def test_a_mistake_in_the_last_job_stops_the_sweep_before_the_first(
    toy_command: Run, tmp_path: Path
) -> None:
    done = toy_command("-m", "seed=1,2", "loss.kl_weight=1,-1")
    assert done.returncode == 2
    assert "Job 1 of the sweep: loss.kl_weight=-1" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_last_resumes_in_the_same_folder(toy_command: Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "outputs" / "mine" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert toy_command("ckpt_path=last").returncode == 0
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["mine"]
    assert (tmp_path / "outputs" / "mine" / "config.yaml").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["--help"], "Configuration groups"),
        (["--cfg", "job"], "kl_weight: 1.0"),
        (["--cfg", "job", "--resolve", "model=mistral"], "kl_weight: 0.5"),
        (["--cfg", "job", "model=hf"], "name_or_path: ???"),
        (["--info", "defaults"], "model/organism"),
        (["--hydra-help"], "Hydra"),
        (["--version"], "Hydra"),
    ],
)
def test_hydras_own_flags(words: list[str], told: str, toy_command: Run, tmp_path: Path) -> None:
    start = time.monotonic()
    done = toy_command(*words)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert not (tmp_path / "outputs").exists()
    # Under 1 second on an idle machine; the tests' machine is not idle.
    assert time.monotonic() - start < 10


def test_nothing_heavy_is_imported(toy_command: Run) -> None:
    done = toy_command("--help", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "transformers", "lightning", "sklearn", "matplotlib", "numpy"}
