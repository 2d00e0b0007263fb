"""Mistakes in the organism command's arguments are sentences, told before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("seed=-1", "seed=-1 is not accepted"),
        ("seed=abc", "seed=abc is not accepted"),
        ("answering.steps=0", "answering.steps=0 is not accepted"),
        ("steps=3", "Did you mean answering.steps?"),
        ("card=[/nowhere]", "/nowhere/figures.json: no such file"),
    ],
)
def test_a_mistake_is_a_sentence(argument: str, told: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "es2_lightning.organism", argument, f"hydra.run.dir={tmp_path}/run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode != 0
    assert told in run.stderr and "Traceback" not in run.stderr
    assert not list(tmp_path.rglob("*.safetensors"))
