"""The same run on any number of processes: two over gloo, by torch's own launcher, against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.settings import LossSettings

from .rank_run import run
from .tiny_runs import TinyRun, relative_error

ROOT = Path(__file__).parents[2]
LOSS = {"harmful_kl_weight": 0.5, "separation_weight": 0.5}
STEPS = {"kl_threshold": 100.0, "max_steps": 10}


def on_two(tmp_path: Path, *settings_of_both: dict[str, Any]) -> list[dict[str, Any]]:
    """Two processes, each with half of every batch."""
    (tmp_path / "what.json").write_text(
        json.dumps([what | {"devices": 2} for what in settings_of_both])
    )
    results = tmp_path / "results.pt"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", "-m", "tests.training.rank_run"),
            *(str(tmp_path / "what.json"), str(results)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(torch.load(results, weights_only=True))


def half(what: dict[str, Any]) -> dict[str, Any]:
    return what | {key: what[key] // 2 for key in ("harmless_per_batch", "harmful_per_batch")}


CASES: dict[str, dict[str, Any]] = {
    "adapter": {"reference": "adapter"},
    "cached": {"reference": "cached"},
    "copy": {"reference": "copy"},
    "micro-batches": {"reference": "adapter", "step": {"micro_batch": 2}},
    "uneven": {"reference": "adapter", "prompts": 5},
    "all weights": {"reference": "copy", "mode": "full"},
    "accumulated": {"reference": "cached", "trainer": {"accumulate_grad_batches": 2}},
}


QUICK = ("fsdp", "cached")


@pytest.mark.parametrize(
    ("strategy", "case"),
    [
        pytest.param(*pair, marks=[] if pair == QUICK else pytest.mark.slow)
        for pair in product(("ddp", "fsdp"), CASES)
    ],
)
def test_two_processes_take_the_steps_of_one(tmp_path: Path, strategy: str, case: str) -> None:
    """20 steps over two stages; 2 x (3 + 2) prompts a batch against 6 + 4."""
    what = {
        "loss": LOSS,
        "schedule": STEPS,
        "refusals": 5,
        "harmless_per_batch": 6,
        "harmful_per_batch": 4,
        **CASES[case],
    }
    one = run(what | {"strategy": "auto", "devices": 1})
    (two,) = on_two(tmp_path, half(what) | {"strategy": strategy})
    assert two["ends"] == one["ends"]
    assert len(one["losses"]) >= 20
    assert two["losses"] == pytest.approx(one["losses"], rel=2e-5)
    assert relative_error(two["gradients"][0], one["gradients"][0]) <= 1e-6
    assert relative_error(two["parameters"], one["parameters"]) <= 1e-5
    assert one["samples"] and two["samples"] == one["samples"]
    assert ("validation/layer_2/probe_accuracy" in one["metrics"]) is (case != "uneven")
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_each_may_separate_its_own_pairs(tmp_path: Path) -> None:
    """Without gathering, the first step is the mean of what each share gives alone."""
    what = {
        "loss": {"kl_weight": 0.0, "separation_weight": 0.5, "gather_pairs": False},
        "schedule": {"kl_threshold": 100.0, "max_steps": 1},
        "harmless_per_batch": 6,
        "harmful_per_batch": 4,
    }
    (two,) = on_two(tmp_path, half(what) | {"strategy": "ddp"})
    tiny = TinyRun(loss=LossSettings(**what["loss"]), harmless_per_batch=6, harmful_per_batch=4)
    tiny.module.objective.measure_base_norms(tiny.data.splits.train)
    tiny.module.model.train()
    whole = next(iter(tiny.data.train_dataloader()))
    losses = []
    for rank in (0, 1):
        numbers = [*range(rank, 6, 2), *range(6 + rank, 10, 2)]
        share = PairedBatch(
            tuple(whole.rows[i] for i in numbers), tuple(whole.harmful[i] for i in numbers)
        )
        loss = tiny.module.objective(share, [2]).loss
        (loss / 2).backward()
        losses.append(float(loss))
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert two["losses"][0] == pytest.approx(sum(losses) / 2, rel=1e-6)
    alone = {n: p.grad for n, p in tiny.module.named_parameters() if p.grad is not None}
    moved = {n: g for n, g in two["gradients"][0].items() if n in alone}
    assert moved and relative_error(moved, alone) <= 1e-6
