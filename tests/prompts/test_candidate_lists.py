"""Lists of candidates as JSONL: what is read, and what is refused or counted, by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from es2_lightning.errors import UserError
from es2_lightning.prompts.candidate_lists import CandidateList, read_lists, write_lists
from es2_lightning.prompts.prompt import Turn

GOOD = {"instruction": "how", "responses": ["no", "so"], "labels": ["safe", "unsafe"]}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows, or lines as they are, into a JSONL file."""

    def to_file(*rows: dict[str, Any] | str) -> Path:
        path = tmp_path / "lists.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
        return path

    return to_file


@pytest.mark.parametrize("labels", [["safe", "unsafe"], ["Safe ", "UNSAFE"], [True, False], [1, 0]])
def test_labels_of_all_kinds(write: Write, labels: list[Any]) -> None:
    read = read_lists(write(GOOD | {"labels": labels}), key="lists", prompt_set="mine")
    assert read.lists == (CandidateList("how", ("no", "so"), (True, False), prompt_set="mine"),)
    assert read.rows == (1,) and not read.left_out.reasons


BAD = {
    "all safe": ({"labels": [1, 1]}, "all responses are safe"),
    "all unsafe": ({"labels": [False, False]}, "all responses are unsafe"),
    "empty list": ({"responses": [], "labels": []}, "responses is empty"),
    "empty instruction": ({"instruction": " "}, "instruction is empty"),
    "too many": ({"responses": ["a"] * 5, "labels": [1, 0, 0, 0, 0]}, "5 responses; accepted"),
    "a label too few": ({"labels": [1]}, "2 responses have 1 labels"),
    "text where numbers count": ({"labels": ["1", 0]}, "labels[0] is '1' (str)"),
    "a grade": ({"labels": [0.5, 0]}, "labels[0] is 0.5 (float)"),
    "no label": ({"labels": [None, 0]}, "labels[0] is None (NoneType)"),
    "a word": ({"labels": ["safe", "harmful"]}, "labels[1] is 'harmful'"),
    "labels in one word": ({"labels": "safe"}, "labels is str, not a list"),
    "a response of the wrong type": ({"responses": ["a", 3]}, "responses[1] is int (3), not text"),
    "half a character": ({"responses": ["a", "\ud83d"]}, "half a character"),
    "kinds": ({"kinds": ["refused"]}, "2 responses have 1 kinds"),
    "harmful": ({"harmful": "yes"}, "harmful is 'yes'; accepted is true or false"),
    "turns": ({"turns": [{"role": "bot", "content": "x"}]}, "turns[0] is no message"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_list_is_refused_by_its_row(write: Write, name: str) -> None:
    change, problem = BAD[name]
    with pytest.raises(UserError) as refused:
        read_lists(write(GOOD, "", GOOD | change), key="lists", most_responses=4)
    assert f"{write().name}, row 3: " in str(refused.value) and problem in str(refused.value)


def test_a_row_without_a_column(write: Write) -> None:
    row = {name: value for name, value in GOOD.items() if name != "labels"}
    with pytest.raises(UserError, match=r"row 1: there is no column 'labels'\. Its columns: instr"):
        read_lists(write(row), key="lists")


def test_bad_lists_are_counted_with_their_first_rows(write: Write) -> None:
    rows = [change for change, _ in BAD.values()]
    path = write("{", GOOD, *(GOOD | change for change in rows), GOOD, GOOD | {"labels": [1, 1]})
    read = read_lists(path, key="lists", bad_lists="drop", most_responses=4)
    assert read.rows == (2, 3 + len(rows)) and len(read.lists) == 2
    assert read.left_out.reasons.total() == len(rows) + 2
    assert "2 × all responses are safe (first in row 3)" in str(read.left_out)
    assert "4 × a label of the wrong type (first in row 9)" in str(read.left_out)
    assert "1 × not JSON" in str(read.left_out)


def test_a_file_of_which_nothing_is_left(write: Write) -> None:
    path = write(GOOD | {"labels": [1, 1]})
    with pytest.raises(UserError, match="no list that can be used: 1 × all responses are safe"):
        read_lists(path, key="lists", bad_lists="drop")
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        read_lists("nowhere.jsonl", key="lists")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lists = (
        CandidateList("é\n", ("a\u2028b", ""), (False, True)),
        CandidateList(
            "Now: how",
            ("a", "b", "c"),
            (True, True, False),
            attack="scav",
            harmful=False,
            kinds=("refused", "helpful", "answered"),
            prompt_set="mine",
            turns=(Turn("user", "hi"), Turn("assistant", "ho")),
            prompt="how",
        ),
    )
    write_lists(tmp_path / "below" / "lists.jsonl", lists)
    assert read_lists(tmp_path / "below" / "lists.jsonl", key="lists").lists == lists
