"""The benchmark command in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..commands import run_command

Benchmark = Callable[..., Path]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Benchmark:
    """Runs the command with these words in an empty folder; gives the run's folder."""
    from es2_lightning.benchmark import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> Path:
        run_command(main, *words, monkeypatch=monkeypatch, status=status)
        if status:
            return tmp_path
        (folder,) = tmp_path.glob("outputs/*/")
        return folder

    return run
