"""The rank command in an empty folder, small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..commands import run_command

SMALL = (
    "+data.source.train_harmful=16",
    "+data.source.train_harmless=24",
    "+data.source.validation_per_kind=8",
    "+data.source.test_per_kind=8",
    "attack=[direct,prefill,template]",
    "ranking.train_prompts=16",
    "ranking.train_harmless=12",
    "ranking.validation_prompts=6",
    "ranking.validation_harmless=6",
    "ranking.test_prompts=8",
    "ranking.test_harmless=9",
    "ranking.train_candidates=6",
    "ranking.test_candidates=4",
    "ranking.list_size=4",
    "ranker.max_epochs=2",
)
Rank = Callable[..., Path]


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rank:
    """Runs the command with these words; gives the run's folder."""
    from es2_lightning.rank import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> Path:
        before = set(tmp_path.glob("outputs/*/config.yaml"))
        run_command(main, *words, monkeypatch=monkeypatch, status=status)
        after = set(tmp_path.glob("outputs/*/config.yaml")) - before
        return after.pop().parent if after else tmp_path

    return run
