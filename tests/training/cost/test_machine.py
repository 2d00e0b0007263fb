"""What a device offers is read from the system; measuring it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from es2_lightning.training.cost import machine
from es2_lightning.training.cost.machine import free_bytes, product_rate

CPU = torch.device("cpu")
KIB = 1024


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as Linux has them, with 5000 KiB free."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:  5000 kB\n")
    monkeypatch.setattr(machine, "PROC", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


def test_free_memory_of_the_host_and_of_a_container(system: Path) -> None:
    assert free_bytes(CPU) == 5000 * KIB
    (system / "memory.current").write_text(f"{3000 * KIB}\n")
    (system / "memory.stat").write_text(f"anon 5\ninactive_file {1000 * KIB}\n")
    for limit, free in (("max", 5000), (str(6000 * KIB), 4000), (str(9000 * KIB), 5000)):
        (system / "memory.max").write_text(f"{limit}\n")
        assert free_bytes(CPU) == free * KIB
    (system / "memory.max").write_text(str(1000 * KIB))
    assert free_bytes(CPU) == 0


def test_elsewhere_the_whole_memory_or_nothing_is_known(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (system / "meminfo").unlink()
    whole = free_bytes(CPU)
    assert whole is not None and whole > 2**20
    monkeypatch.delattr(machine.os, "sysconf")
    assert free_bytes(CPU) is None
    assert free_bytes(torch.device("meta")) is None


def test_the_rate_is_positive_and_draws_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SECONDS", 0.001)
    before = torch.get_rng_state()
    assert product_rate(CPU, torch.float32, tokens=64, d_in=32, d_out=48) > 1e5
    assert torch.equal(torch.get_rng_state(), before)
    # More than may be multiplied at once: fewer rows are.
    monkeypatch.setitem(machine.PRODUCT_FLOPS, "cpu", 1e5)
    assert product_rate(CPU, torch.bfloat16, tokens=10**9, d_in=64, d_out=64) > 1e3
