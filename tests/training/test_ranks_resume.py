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
    "harmful_per_batch": 2,
    "trainer": {"accumulate_grad_batches": 2},
}
# In the middle of an epoch, at the first stage's end with a fresh optimizer, at an epoch's end.
STEPS = (1, 4, 6)


def runs(where: str, tmp_path: Path, *settings_of_both: dict[str, Any]) -> list[dict[str, Any]]:
    if where == "one":
        return [run(what | {"strategy": "auto", "devices": 1}) for what in settings_of_both]
    return on_two(tmp_path, *(half(what) | {"strategy": where} for what in settings_of_both))


def resumed(tmp_path: Path, what: dict[str, Any]) -> list[dict[str, Any]]:
    return [what | {"ckpt_path": str(tmp_path / f"{step}.ckpt")} for step in STEPS]


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_bit_for_bit_with_dropout(tmp_path: Path, strategy: str) -> None:
    what = WHAT | {"dropout": 0.1}
    saving = what | {"checkpoints": str(tmp_path)}
    whole, *again = runs(strategy, tmp_path, saving, *resumed(tmp_path, what))
    for step, rest in zip(STEPS, again, strict=True):
        assert rest["losses"] == whole["losses"][2 * step :], step
        assert rest["ends"] == whole["ends"], step
        for name, parameter in whole["parameters"].items():
            assert torch.equal(rest["parameters"][name], parameter), (step, name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("saved", ["one", "ddp", "fsdp"])
def test_under_every_other(tmp_path: Path, saved: str, mode: str) -> None:
    what = WHAT | ({"mode": "full", "reference": "copy"} if mode == "full" else {})
    (whole,) = runs(saved, tmp_path, what | {"checkpoints": str(tmp_path)})
    file = torch.load(tmp_path / "4.ckpt", weights_only=True)
    assert file["state_dict"].keys() == whole["parameters"].keys()
    assert file["optimizer_states"][0]["state"] == {}
    for other in {"one", "ddp", "fsdp"} - {saved}:
        for step, rest in zip(STEPS, runs(other, tmp_path, *resumed(tmp_path, what)), strict=True):
            told = (other, step)
            assert rest["losses"] == pytest.approx(whole["losses"][2 * step :], rel=2e-5), told
            assert rest["ends"] == whole["ends"], told
            assert relative_error(rest["parameters"], whole["parameters"]) <= 1e-5, told
