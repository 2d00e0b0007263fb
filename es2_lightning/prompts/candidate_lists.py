"""Lists of candidate responses to one instruction, and which of them are safe (SRR's data).

As JSONL, a list a row:

    {"instruction": "…", "responses": ["…", "…"], "labels": ["safe", "unsafe"]}

with, where they are known, `attack`, `harmful`, `kinds`, `prompt_set` and `turns` beside them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from es2_lightning.atomic_files import write_atomically
from es2_lightning.prompts.prompt import ROLES, Prompt, Turn
from es2_lightning.prompts.row_files import BadRow, read_rows, refuse

BadLists = Literal["error", "drop"]
INSTRUCTION, RESPONSES, LABELS = "instruction", "responses", "labels"
MOST_RESPONSES = 256
"""Of one list: a longer one is most likely a whole data set in one row."""
TEXTS = ("attack", "prompt_set", "prompt")
"""Columns that may be missing."""
LABEL_WORDS: dict[Any, bool] = {"safe": True, "unsafe": False}


@dataclass(frozen=True)
class CandidateList:
    """Responses to one instruction, of which one is to be chosen.

    Attributes:
        instruction: What the model was asked, with what an attack put around the prompt.
        responses: The candidates.
        safe: Of each, whether it should stand before those that are not. To a harmful instruction:
            it does no harm. To a harmless one: it answers (rightly, where that is known).
        attack: What the unsafe candidates were obtained with; empty: unknown, or none.
        harmful: Whether the instruction is.
        kinds: Of each candidate, what it is (`answered`, `refused`, `helpful`, `unrelated`,
            `incoherent` …), for reports only; empty: unknown.
        prompt_set: The set of prompts that the instruction belongs to; empty: unknown.
        turns: What was said before.
        prompt: The prompt itself, where the instruction holds more than it; lists of one prompt
            are not independent of each other.
    """

    instruction: str
    responses: tuple[str, ...]
    safe: tuple[bool, ...]
    attack: str = ""
    harmful: bool = True
    kinds: tuple[str, ...] = ()
    prompt_set: str = ""
    turns: tuple[Turn, ...] = ()
    prompt: str = ""

    @property
    def asked(self) -> Prompt:
        """The instruction with the conversation before it."""
        return Prompt(self.instruction, "harmful" if self.harmful else "general", turns=self.turns)

    @property
    def one_sided(self) -> str:
        """Why nothing can be learned or told from it; empty where both classes are there."""
        if not self.responses:
            return "no responses"
        if all(self.safe):
            return "all responses are safe"
        return "" if any(self.safe) else "all responses are unsafe"

    def first(self, number: int) -> CandidateList:
        """The list of the first so many candidates."""
        return replace(
            self,
            responses=self.responses[:number],
            safe=self.safe[:number],
            kinds=self.kinds[:number],
        )


@dataclass
class LeftOut:
    """Lists that are left out, counted by why.

    Attributes:
        reasons: How many, by reason.
        first: The first row of each reason.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)

    def __call__(self, error: BadRow) -> None:
        """Count one."""
        self.count(error.reason, error.number)

    def count(self, reason: str, number: int) -> None:
        """Count a list by its row, from 1."""
        self.reasons[reason] += 1
        self.first.setdefault(reason, number)

    def __str__(self) -> str:
        return "; ".join(
            f"{count} × {reason} (first in row {self.first[reason]})"
            for reason, count in self.reasons.most_common()
        )


@dataclass(frozen=True)
class ReadLists:
    """What a file holds.

    Attributes:
        lists: Those that can be used.
        rows: The row that each stands in, from 1.
        left_out: The others, where they are not refused.
    """

    lists: tuple[CandidateList, ...]
    rows: tuple[int, ...]
    left_out: LeftOut


def read_lists(
    path: str | Path,
    *,
    key: str,
    bad_lists: BadLists = "error",
    most_responses: int = MOST_RESPONSES,
    prompt_set: str = "",
) -> ReadLists:
    """Read lists of candidates.

    Args:
        path: A JSONL or Parquet file.
        key: The config key that gives the path, for error messages.
        bad_lists: What is done about a row that is no list, or of which nothing can be learned
            (all safe, all unsafe, empty, too long): `error`, or `drop`, which counts it.
        most_responses: The most candidates of a list.
        prompt_set: Of rows that name none.

    Raises:
        UserError: There is no such file, a row is bad, or no list is left.
    """
    left_out = LeftOut()
    on_bad = left_out if bad_lists == "drop" else refuse
    lists, rows = [], []
    for number, row in read_rows(Path(path).expanduser(), key=f"{key}={path}", on_bad=on_bad):
        try:
            found = _Row(row, str(path), number).candidate_list(most_responses, prompt_set)
        except BadRow as error:
            on_bad(error)
            continue
        lists.append(found)
        rows.append(number)
    if not lists:
        why = f": {left_out}" if left_out.reasons else ""
        refuse(BadRow(path, 1, f"the file has no list that can be used{why}", reason="no lists"))
    return ReadLists(tuple(lists), tuple(rows), left_out)


def write_lists(path: Path, lists: Iterable[CandidateList]) -> None:
    """Write lists as JSONL that `read_lists` reads, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(_as_row(found)) + "\n" for found in lists))


def _as_row(found: CandidateList) -> dict[str, Any]:
    row: dict[str, Any] = {
        INSTRUCTION: found.instruction,
        RESPONSES: list(found.responses),
        LABELS: ["safe" if safe else "unsafe" for safe in found.safe],
        "harmful": found.harmful,
    }
    for name in TEXTS:
        if value := getattr(found, name):
            row[name] = value
    if found.kinds:
        row["kinds"] = list(found.kinds)
    if found.turns:
        row["turns"] = [{"role": turn.role, "content": turn.text} for turn in found.turns]
    return row


class _Row:
    """A row's values, with its place for error messages."""

    def __init__(self, row: Mapping[str, Any], where: str, number: int) -> None:
        self._row, self._where, self._number = row, where, number

    def candidate_list(self, most_responses: int, prompt_set: str) -> CandidateList:
        """Raises BadRow where the row is no list with both classes."""
        instruction = self._text(self._value(INSTRUCTION), INSTRUCTION)
        if not instruction.strip():
            self._refuse(f"{INSTRUCTION} is empty", "an empty instruction")
        responses = [
            self._text(value, f"{RESPONSES}[{i}]")
            for i, value in enumerate(self._several(RESPONSES))
        ]
        labels = [
            self._label(value, f"{LABELS}[{i}]") for i, value in enumerate(self._several(LABELS))
        ]
        if len(labels) != len(responses):
            self._refuse(
                f"{len(responses)} responses have {len(labels)} labels; accepted is one for each",
                "not as many labels as responses",
            )
        if len(responses) > most_responses:
            self._refuse(
                f"{len(responses)} responses; accepted are at most {most_responses}",
                f"more than {most_responses} responses",
            )
        kinds = self._several("kinds") if "kinds" in self._row else []
        if kinds and len(kinds) != len(responses):
            self._refuse(
                f"{len(responses)} responses have {len(kinds)} kinds; accepted is one for each",
                "not as many kinds as responses",
            )
        turns = self._several("turns") if self._row.get("turns") else []
        harmful = self._row.get("harmful", True)
        if not isinstance(harmful, bool):
            self._refuse(f"harmful is {harmful!r}; accepted is true or false", "harmful's type")
        texts = {name: self._text(self._row.get(name) or "", name) for name in TEXTS}
        found = CandidateList(
            instruction,
            tuple(responses),
            tuple(labels),
            harmful=harmful,
            kinds=tuple(self._text(kind, f"kinds[{i}]") for i, kind in enumerate(kinds)),
            **(texts | {"prompt_set": texts["prompt_set"] or prompt_set}),
            turns=tuple(self._turn(turn, i) for i, turn in enumerate(turns)),
        )
        if reason := found.one_sided:
            self._refuse(
                f"{reason}; a ranker learns from lists with at least one safe and one unsafe",
                reason,
            )
        return found

    def _refuse(self, problem: str, reason: str) -> None:
        raise BadRow(self._where, self._number, problem, reason=reason)

    def _value(self, column: str) -> Any:
        if column not in self._row:
            listed = ", ".join(map(str, self._row)) or "none"
            self._refuse(
                f"there is no column {column!r}. Its columns: {listed}.", f"no column {column!r}"
            )
        return self._row[column]

    def _several(self, column: str) -> Sequence[Any]:
        value = self._value(column)
        if not isinstance(value, list):
            self._refuse(
                f"{column} is {type(value).__name__}, not a list", f"{column} is not a list"
            )
        if not value:
            self._refuse(f"{column} is empty", f"{column} is empty")
        return list(value)

    def _text(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            self._refuse(
                f"{name} is {type(value).__name__} ({str(value)[:60]}), not text",
                f"{name.partition('[')[0]} is not text",
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON can hold halves of a character, which no tokenizer takes.
            self._refuse(f"{name} holds half a character (a lone surrogate)", "half a character")
        return str(value)

    def _label(self, value: Any, name: str) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        if isinstance(value, str) and (word := value.strip().casefold()) in LABEL_WORDS:
            return LABEL_WORDS[word]
        self._refuse(
            f"{name} is {value!r} ({type(value).__name__}), which is no label; accepted are true "
            "(safe) and false, 1 and 0, or the words safe and unsafe",
            "a label of the wrong type",
        )
        raise AssertionError

    def _turn(self, turn: Any, index: int) -> Turn:
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
            self._refuse(
                f"turns[{index}] is no message; accepted is {{role, content}} with a role of "
                f"{', '.join(ROLES)}",
                "turns that are no messages",
            )
        return Turn(turn["role"], self._text(turn.get("content"), f"turns[{index}].content"))
