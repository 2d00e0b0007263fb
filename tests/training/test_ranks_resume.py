"""A checkpoint goes on under its own strategy bit for bit, and under every other one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from .rank_run import run
from .test_ranks import half, on_two
from .tiny_runs import relative_error

WHAT: dict[str, Any] = {
    "reference": "adapter",
    "loss": {"harmful_kl_weight": 0.5, "separation_weight": 0.5},
    "schedule": {"kl_threshold": 100.0, "max_steps": 4},
    "refusals": 5,
    "harmless_per_batch": 6,
    "harmful_per_batch": 4,
    "trainer": {"accumulate_grad_batches": 2},
}
# In the first stage, at its end with a fresh optimizer, and in the second.
STEPS = (1, 4, 6)


def on_(where: str, tmp_path: Path, what: dict[str, Any]) -> dict[str, Any]:
    if where == "one":
        return run(what | {"strategy": "auto", "devices": 1})
    return on_two(tmp_path, half(what) | {"strategy": where})


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bit_for_bit_with_dropout(tmp_path: Path, strategy: str) -> None:
    what = WHAT | {"dropout": 0.1}
    whole = on_(strategy, tmp_path, what | {"checkpoints": str(tmp_path)})
    for step in STEPS:
        again = on_(strategy, tmp_path, what | {"ckpt_path": str(tmp_path / f"{step}.ckpt")})
        assert again["losses"] == whole["losses"][2 * step :], step
        assert again["ends"] == whole["ends"], step
        for name, parameter in whole["parameters"].items():
            assert torch.equal(again["parameters"][name], parameter), (step, name)


@pytest.mark.parametrize("mode", ["lora", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("saved", ["one", "ddp", "fsdp"])
def test_under_every_other(tmp_path: Path, saved: str, mode: str) -> None:
    what = WHAT | ({"mode": "full", "reference": "copy"} if mode == "full" else {})
    whole = on_(saved, tmp_path, what | {"checkpoints": str(tmp_path)})
    file = torch.load(tmp_path / "4.ckpt", weights_only=True)
    assert file["state_dict"].keys() == whole["parameters"].keys()
    assert file["optimizer_states"][0]["state"] == {}
    for other in {"one", "ddp", "fsdp"} - {saved}:
        for step in STEPS:
            ckpt_path = str(tmp_path / f"{step}.ckpt")
            again = on_(other, tmp_path, what | {"ckpt_path": ckpt_path})
            assert again["losses"] == pytest.approx(whole["losses"][2 * step :], rel=2e-5), step
            assert again["ends"] == whole["ends"], step
            error = relative_error(again["parameters"], whole["parameters"])
            assert error <= 1e-5, (other, step, error)
