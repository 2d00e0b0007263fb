"""What a device has to offer: free memory, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

PRODUCT_FLOPS = {"cpu": 2e9, "cuda": 2e12}
"""The most that one timed product multiplies: some hundredths of a second."""
SECONDS = 0.1
"""How long products are timed."""
PROC, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free; of a CPU, what the host can still give this process. None: not known."""
    if device.type == "cuda":
        # What torch keeps back of what was freed is there for this process as well.
        kept_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept_back
    if device.type != "cpu":
        return None
    limits = [_of_host(), _of_container()]
    return min((limit for limit in limits if limit is not None), default=None)


def product_rate(
    device: torch.device, dtype: torch.dtype, *, tokens: int, d_in: int, d_out: int
) -> float:
    """FLOP/s of products such as a linear module's, timed now.

    Args:
        device: Where.
        dtype: Of both matrices.
        tokens: Rows of the first matrix; fewer are taken where a product would last long.
        d_in: Its columns.
        d_out: Columns of the second one.
    """
    most = PRODUCT_FLOPS.get(device.type, PRODUCT_FLOPS["cpu"])
    rows = max(1, min(tokens, int(most / (2 * d_in * d_out))))
    # Values do not matter; of zeros nothing is drawn, so that the process's random numbers stay.
    x = torch.zeros(rows, d_in, device=device, dtype=dtype)
    weight = torch.zeros(d_out, d_in, device=device, dtype=dtype)
    torch.nn.functional.linear(x, weight)
    count, elapsed = 1, 0.0
    while elapsed < SECONDS:
        _synchronize(device)
        began = time.perf_counter()
        for _ in range(count):
            torch.nn.functional.linear(x, weight)
        _synchronize(device)
        elapsed, timed = time.perf_counter() - began, count
        count *= 2
    return 2 * rows * d_in * d_out * timed / elapsed


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _of_host() -> int | None:
    try:
        for line in PROC.read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _of_container() -> int | None:
    """What a control group (version 2) leaves; files that it holds can be forgotten."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None  # No limit, or no such group.
