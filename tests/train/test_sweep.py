"""Jobs of a sweep share what is the same, and do as runs of their own do."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from es2_lightning.backbone import kept_model
from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.row_store import drop_memory_stores

from .conftest import SMALL, TINY_EVALUATION, Train

WORDS = (*SMALL, "evaluate=none")
ADAPTER = Path("adapter") / "adapter_model.safetensors"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that were loaded."""
    found: list[Any] = []

    def counted(settings: Any) -> Any:
        found.append(settings)
        return load_chat_model(settings)

    monkeypatch.setattr(kept_model, "load_chat_model", counted)
    return found


def adapters_equal(one: Path, other: Path) -> bool:
    tensors, others = load_file(one / ADAPTER), load_file(other / ADAPTER)
    assert tensors.keys() == others.keys() and tensors
    return all(torch.equal(tensors[name], others[name]) for name in tensors)


def alone(train: Train, *words: str) -> Path:
    """A run of its own, as in a process of its own: nothing is there that another held."""
    drop_memory_stores()
    return train(*words)


def jobs_of(tmp_path: Path) -> list[Path]:
    (sweep,) = tmp_path.glob("outputs/sweeps/*")
    return sorted((path.parent for path in sweep.glob("*/config.yaml")), key=lambda p: int(p.name))


def test_jobs_share_the_model_and_do_as_runs_of_their_own(
    train: Train, tmp_path: Path, loads: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*WORDS, "model.reference=cached")
    drop_memory_stores()
    train("-m", *words, "loss.kl_weight=0.1,1")
    shown = capsys.readouterr().out
    assert len(loads) == 1
    built = [int(rows) for rows in re.findall(r"Reference cache: (\d+) rows computed", shown)]
    assert built[0] > 0 and built[1:] == [0]
    # By probes, and by generating, once.
    assert shown.count("Probe accuracy by layer") == 1
    assert "2 jobs took" in shown and "times as long (an estimate from the first" in shown
    jobs = jobs_of(tmp_path)
    for job, weight in zip(jobs, ("0.1", "1"), strict=True):
        run = alone(
            train, *words, f"loss.kl_weight={weight}", f"hydra.run.dir=outputs/alone_{job.name}"
        )
        assert adapters_equal(job, run)
        assert (job / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert not adapters_equal(jobs[0], jobs[1])
    assert "jobs took" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_job_leaves_nothing_to_the_next(
    train: Train,
    tmp_path: Path,
    loads: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from es2_lightning.training.es2_module import ES2Module

    step = ES2Module.training_step
    calls = []

    def fails(self: ES2Module, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("in the middle of the second job")
        return step(self, *args)

    monkeypatch.setattr(ES2Module, "training_step", fails)
    train("-m", *WORDS, "loss.kl_weight=0.1,0.5,1", status=1)
    monkeypatch.setattr(ES2Module, "training_step", step)
    shown = capsys.readouterr()
    assert "RuntimeError: in the middle of the second job" in shown.err
    assert "2 jobs took" in shown.out
    assert len(loads) == 2
    sweep = jobs_of(tmp_path)[0].parent
    run = alone(train, *WORDS, "loss.kl_weight=1", "hydra.run.dir=outputs/alone")
    assert adapters_equal(sweep / "2", run)


@pytest.mark.slow
def test_measurements_are_those_of_runs_of_their_own(train: Train, tmp_path: Path) -> None:
    words = (*SMALL, *TINY_EVALUATION)
    drop_memory_stores()
    train("-m", *words, "loss.kl_weight=0.1,1")
    for job, weight in zip(jobs_of(tmp_path), ("0.1", "1"), strict=True):
        run = alone(
            train, *words, f"loss.kl_weight={weight}", f"hydra.run.dir=outputs/alone_{job.name}"
        )
        assert adapters_equal(job, run)
        names = sorted(p.relative_to(run) for p in (run / "evaluation").rglob("*"))
        assert names == sorted(p.relative_to(job) for p in (job / "evaluation").rglob("*"))
        for name in (*names, Path("metrics.jsonl"), Path("layers.json"), Path("table.txt")):
            if (run / name).is_file():
                assert (job / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.slow
def test_the_shipped_grid(train: Train, tmp_path: Path, loads: list[Any]) -> None:
    train("sweep=kl_weight_grid", *WORDS)
    jobs = jobs_of(tmp_path)
    assert len(jobs) == 12 and len(loads) == 1
    weights = {
        (loss["kl_weight"], loss["separation_weight"])
        for loss in (yaml.safe_load((job / "config.yaml").read_text())["loss"] for job in jobs)
    }
    assert weights == set(product((0.1, 0.2, 0.5, 1.0), (0.3, 1.0, 3.0)))
    assert all((job / ADAPTER).is_file() for job in jobs)
