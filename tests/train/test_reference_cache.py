"""`model.reference=cached` from the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from es2_lightning.backbone.row_store import drop_memory_stores

from .conftest import SMALL, Train

WORDS = (*SMALL, "evaluate=none", "model.reference=cached")


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_a_folder_serves_the_next_run_and_is_refused_by_one_of_other_settings(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = "model.reference_cache.folder=cache"
    first = losses(train(*WORDS, folder))
    capsys.readouterr()
    again = losses(train(*WORDS, folder))
    shown = capsys.readouterr()
    assert again == first
    assert "Reference cache: 0 rows computed" in shown.out + shown.err
    kept = json.loads((tmp_path / "cache" / "fingerprint.json").read_text())
    assert kept["trainer.precision"] == "32-true" and kept["model.dtype"] == "float32"
    train(*WORDS, folder, "model.max_length=100", status=1)
    shown = capsys.readouterr()
    assert "folder=cache" in shown.err and "model.max_length (" in shown.err
    assert "weights" not in shown.err


def test_where_all_weights_train_the_base_is_loaded_again(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_memory_stores()
    train(*WORDS, "model.mode=full", "schedule.max_steps=1")
    shown = "".join(capsys.readouterr())
    assert " rows computed in " in shown and shown.count("Loading ") == 2
    assert "compares the base model with itself" not in shown
