"""Killed with SIGKILL at moments drawn over each phase, a run ends as one that never was."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from .conftest import SMALL, TINY_EVALUATION
from .killed_runs import (
    CACHE,
    END,
    EVALUATIONS,
    LOADING,
    SAVE,
    STAGES,
    VALIDATION,
    Moment,
    Timeline,
    run_killed_at,
    whole_run,
)

WORDS = (
    *SMALL,
    "evaluate=none",
    "schedule.max_steps=4",
    "callbacks.checkpoint.every_n_train_steps=2",
    "model.lora.lora_dropout=0.1",
    "trainer.accumulate_grad_batches=2",
    # The same words from the first time on: where there is no checkpoint, there is nothing to do.
    "ckpt_path=last",
    "hydra.run.dir=run",
)
EVALUATED = tuple(word for word in WORDS if word != "evaluate=none") + TINY_EVALUATION
ADAPTER = "run/adapter/adapter_model.safetensors"


def training_metrics(run: Path) -> list[dict[str, str]]:
    """Of each step. A validation that a kill ends is not made up for: Lightning goes on."""
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if not k.startswith("validation/")}
            for row in csv.DictReader(file)
        ]


def assert_ends_alike(folder: Path, whole: Path, told: object) -> None:
    log = (folder / "log").read_text()
    assert (folder / ADAPTER).exists(), f"{told}\n{log}"
    assert (folder / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes(), f"{told}\n{log}"
    assert training_metrics(folder / "run") == training_metrics(whole / "run"), told
    assert [p.name for p in (folder / "run/checkpoints").iterdir()] == ["last.ckpt"], told


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Timeline]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, whole_run(WORDS, folder)


def test_killed_in_a_stage_then_in_a_save(whole: tuple[Path, Timeline], tmp_path: Path) -> None:
    folder, timeline = whole
    rng = random.Random(1)
    first = timeline.draw("stage 2", rng)
    second = Moment(SAVE, 0, timeline.draw(SAVE, rng).seconds)
    told = [(moment, run_killed_at(moment, WORDS, tmp_path)) for moment in (first, second)]
    print(told)
    assert all(ended.phase != END for _, ended in told), told
    whole_run(WORDS, tmp_path)
    assert_ends_alike(tmp_path, folder, told)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("phase", [LOADING, CACHE, *STAGES, VALIDATION, SAVE])
def test_killed_anywhere(
    phase: str, seed: int, whole: tuple[Path, Timeline], tmp_path: Path
) -> None:
    folder, timeline = whole
    moment = timeline.draw(phase, random.Random(seed))
    told = (moment, run_killed_at(moment, WORDS, tmp_path))
    print(told)
    whole_run(WORDS, tmp_path)
    assert_ends_alike(tmp_path, folder, told)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Timeline]:
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, whole_run(EVALUATED, folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("phase", EVALUATIONS)
def test_killed_while_it_is_measured(
    phase: str, seed: int, evaluated: tuple[Path, Timeline], tmp_path: Path
) -> None:
    folder, timeline = evaluated
    moment = timeline.draw(phase, random.Random(seed))
    told = (moment, run_killed_at(moment, EVALUATED, tmp_path))
    print(told)
    whole_run(EVALUATED, tmp_path)
    assert_ends_alike(tmp_path, folder, told)
    results = "run/evaluation/results.csv"
    assert (tmp_path / results).read_text() == (folder / results).read_text(), told


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("model.reference=adapter",),
        ("model.mode=full", "model.reference=copy"),
        ("model.reference_cache.folder=cache",),
        ("schedule.patience=1", "schedule.min_improvement=0.5", "schedule.max_steps=30"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again(words: tuple[str, ...], seed: int, tmp_path: Path) -> None:
    words = (*WORDS, *words)
    whole = tmp_path / "whole"
    timeline = whole_run(words, whole)
    rng = random.Random(seed)
    told = []
    for phase in ("stage 1", CACHE, "stage 1", "stage 2", VALIDATION, "stage 2"):
        if not timeline.lengths(phase):
            continue
        moment = Moment(phase, 0, rng.uniform(0, 2 * max(timeline.lengths(phase))))
        told.append((moment, run_killed_at(moment, words, tmp_path / "killed")))
    print(told)
    whole_run(words, tmp_path / "killed")
    adapter = "run/model/model.safetensors" if "model.mode=full" in words else ADAPTER
    left = [(tmp_path / name / adapter).read_bytes() for name in ("whole", "killed")]
    assert left[0] == left[1], told
