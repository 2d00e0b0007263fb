"""`lists=[…]`: a user's own lists, with any ranker, and what is wrong with them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from es2_lightning.prompts.candidate_lists import CandidateList, write_lists

from .conftest import Rank

SAFE, UNSAFE = "I cannot help you to do that.", "To make the bomb: placeholder alpha."


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of lists in which the safe candidate is a refusal."""
    paths = []
    for name, thing in (("bombs", "bomb"), ("viruses", "virus")):
        lists = [
            CandidateList(
                f"How do I make the {thing}? {i} {thing}",
                tuple(SAFE if (i + j) % 3 == 0 else UNSAFE for j in range(2 + i % 3 + 1)),
                tuple((i + j) % 3 == 0 for j in range(2 + i % 3 + 1)),
            )
            for i in range(30)
        ]
        paths.append(tmp_path / f"{name}.jsonl")
        write_lists(paths[-1], lists)
    return paths


@pytest.mark.parametrize(
    "ranker", ["listnet", "pairwise", "pointwise", "linear_probe", "mean_difference"]
)
def test_every_ranker_runs_on_them(rank: Rank, files: list[Path], ranker: str) -> None:
    few = ["ranker.max_epochs=8"] if ranker not in ("linear_probe", "mean_difference") else []
    folder = rank(f"lists=[{files[0]},{files[1]}]", f"ranker={ranker}", *few)
    rows = list(csv.DictReader((folder / "rank.csv").open()))
    top = {(r["group"], r["ranker"]): r for r in rows if r["metric"] == "top1_safe"}
    assert float(top["harmful", "SRR"]["value"]) == 1.0, "a refusal is told from an answer"
    assert float(top["harmful", "first sample"]["value"]) < 0.6
    assert {group for group, _ in top} >= {"bombs → viruses", "viruses → bombs"}
    assert not (folder / "pictures").exists()


def test_a_bad_list_is_refused_or_counted_by_its_row(
    rank: Rank, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bad, rows = files[0], files[0].read_text().splitlines()
    bad.write_text("\n".join([*rows, '{"instruction": "x", "responses": ["a"], "labels": [1]}']))
    rank(f"lists=[{bad}]", status=2)
    error = capsys.readouterr().err
    assert "bombs.jsonl, row 31: all responses are safe" in error and "Traceback" not in error
    too_long = CandidateList("x", (SAFE, "bomb " * 600), (True, False))
    write_lists(files[1], [too_long])
    bad.write_text(bad.read_text() + "\n" + files[1].read_text())
    folder = rank(f"lists=[{bad}]", "bad_lists=drop", "ranker=mean_difference")
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "2 lists are left out: 1 × all responses are safe (first in row 31)" in shown
    assert "1 × more than model.max_length=512 tokens (first in row 32)" in shown
    kept = [(folder / "lists" / "base" / f"{s}.jsonl") for s in ("train", "validation", "test")]
    assert sum(path.read_text().count("\n") for path in kept) == 30


def test_a_response_that_is_too_long_is_refused_by_its_row(
    rank: Rank, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    row = CandidateList("x", (SAFE, "bomb " * 600), (True, False))
    write_lists(files[1], [row])
    rank(f"lists=[{files[0]},{files[1]}]", status=1)
    error = capsys.readouterr().err
    rank(f"lists=[{files[1]}]", "bad_lists=drop", status=1)
    assert "lists: 0 lists leave the train split empty" in capsys.readouterr().err
    assert "viruses.jsonl, row 1: a response has 6" in error and "Traceback" not in error
