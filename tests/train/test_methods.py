"""A run of another method than ES2, by the command."""

from __future__ import annotations

import json

import pytest

from es2_lightning.config.method_words import ignored_words

from .conftest import SMALL, Train

STL = {"_target_": "es2_lightning.training.stl.STLModule"}
ES2 = {"_target_": "es2_lightning.training.es2_module.ES2Module"}


def test_what_a_run_leaves_says_nothing_of_es2(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    # SMALL sets a threshold.
    folder = train(*SMALL, "layers.emergence=3", "method=stl", "evaluate=none")
    told = capsys.readouterr().out
    assert "schedule.kl_threshold=10 changes nothing: STLModule has a loss of its own" in told
    assert json.loads((folder / "layers.json").read_text()) == {"separated": [], "depth": 6}
    (end,) = json.loads((folder / "stages.json").read_text())
    assert (end["layers"], end["steps"], end["kl"]) == ([], 2, None)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = {key for row in rows for key in row}
    assert {"train/loss", "train/answer_loss", "train/refusal_loss"} <= logged
    assert not {"train/kl", "train/kl_threshold", "train/separation"} & logged


def test_words_that_a_method_does_not_read() -> None:
    words = ["loss.kl_weight=1", "loss=paper", "schedule.max_steps=3", "loss_of_mine=1"]
    told = list(ignored_words(STL, words))
    assert [sentence.partition(" ")[0] for sentence in told] == words[:2]
    assert not list(ignored_words(ES2, words))
