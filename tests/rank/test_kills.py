"""A rank command that is killed while it samples goes on from the candidates that it has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import SMALL

WORDS = [word for word in SMALL if not word.startswith(("ranker", "attack"))]
WORDS += ["ranker=mean_difference", "attack=[direct,prefill]", "ranking.batch_size=8"]
COMMAND = [sys.executable, "-m", "es2_lightning.rank", *WORDS]


def started(folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "out.txt").open("a") as out:
        return subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=out, stderr=out)


def lines(folder: Path) -> dict[str, list[str]]:
    """The whole lines of each file of candidates."""
    return {
        path.name: path.read_text().split("\n")[:-1]
        for path in (folder / "outputs" / "candidates").glob("*.jsonl")
    }


@pytest.mark.slow
def test_it_goes_on_from_what_was_sampled(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert started(whole).wait() == 0, (whole / "out.txt").read_text()
    process = started(killed)
    while process.poll() is None and sum(map(len, lines(killed).values())) < 20:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = lines(killed)
    assert 20 <= sum(map(len, kept.values())) < sum(map(len, lines(whole).values()))
    assert started(killed).wait() == 0, (killed / "out.txt").read_text()
    made = lines(killed)
    assert all(made[name][: len(rows)] == rows for name, rows in kept.items()), "sampled once"
    assert made == lines(whole)
    figures = [path.read_bytes() for f in (whole, killed) for path in f.glob("outputs/*/rank.csv")]
    assert len(figures) == 2 and figures[0] == figures[1]
