"""`python -m es2_lightning.sweep_report`: what it shows, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from es2_lightning.sweep_report import main

from ..commands import run_command
from .synthetic_sweeps import write_job


def test_it_draws_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_job(Path("sweep"), 0, "loss.kl_weight=1")
    run_command(main, "dir=sweep", monkeypatch=monkeypatch)
    assert "1 job: 1 finished." in capsys.readouterr().out
    names = {path.name for path in Path("sweep").iterdir()}
    assert names - {".sweep.lock"} == {"0", "sweep.csv", "sweep.txt", "sweep.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"sweep"}


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "dir has no value. Give it one: dir=<a sweep's folder>"),
        (["dir=nowhere"], "dir=nowhere: no such folder. Accepted: a sweep's, such as"),
        (["dir=empty"], "no job of a sweep has begun there"),
        (["dir=sweeps"], "no job of a sweep has begun there .*such as sweeps/one"),
        (["dir=sweeps/one/0"], "the folder of one job. Accepted: .*such as sweeps/one"),
    ],
)
def test_what_is_no_sweep_is_refused(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_job(Path("sweeps/one"), 0)
    run_command(main, *words, monkeypatch=monkeypatch, status=2)
    assert re.search(told, capsys.readouterr().err)
