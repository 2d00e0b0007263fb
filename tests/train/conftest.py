"""The train command in this process: imports are paid once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..commands import run_command

SMALL = (
    "+data.source.train_harmful=60",
    "+data.source.train_harmless=120",
    "+data.source.validation_per_kind=20",
    "+data.source.test_per_kind=8",
    "data.harmless_per_batch=6",
    "data.harmful_per_batch=3",
    "schedule.max_steps=2",
    "schedule.max_epochs=null",
    "schedule.kl_threshold=10",
)
"""Few and short prompts, two steps a stage."""
TINY_EVALUATION = (
    "evaluate.harmful_prompts=4",
    "evaluate.validation_prompts=3",
    "evaluate.other_prompts=6",
    "attack.scav_worst.budgets=[0.1,1]",
)

Train = Callable[..., Path]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Train:
    """Runs the command with these words in an empty folder; gives the run's folder."""
    from es2_lightning.train import main

    monkeypatch.chdir(tmp_path)
    # Tested in tests/reports/page; they would take a second of every run.
    monkeypatch.setattr("es2_lightning.reports.page.run_page.drawn", lambda drawings: [])

    def run(*words: str, status: int = 0) -> Path:
        run_command(main, *words, monkeypatch=monkeypatch, status=status)
        runs = sorted(tmp_path.glob("outputs/*/"), key=lambda path: path.stat().st_mtime)
        return runs[-1] if runs else tmp_path

    return run
