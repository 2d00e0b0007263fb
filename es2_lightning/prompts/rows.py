"""From a table's row to a prompt, whatever the table came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from es2_lightning.prompts.prompt import ROLES, Kind, Prompt, Turn
from es2_lightning.prompts.row_files import BadRow

Row = Mapping[str, Any]
MESSAGES = "messages"
"""Where a conversation is looked for in a row that has none of the prompt's columns."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a prompt's parts stand in a row.

    Attributes:
        prompt: Joined by an empty line; those that are empty are left out.
        response: The right answer.
        target: The beginning of an answer, for attacks that aim at it.
        refusal: A refusal of a harmful prompt.
        system: The system turn.
        messages: A whole conversation instead of these: a list of {role, content}, or JSON text of
            one. Its last turn of the user is the prompt; an answer after it is the response.
        most_turns: Of a longer conversation so many turns of the user are kept, from the first on.
    """

    prompt: tuple[str, ...] = ("prompt",)
    response: str | None = None
    target: str | None = None
    refusal: str | None = None
    system: str | None = None
    messages: str | None = None
    most_turns: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that are set."""
        first = self.prompt if self.messages is None else (self.messages,)
        return (*first, *filter(None, (self.response, self.target, self.refusal, self.system)))


def prompt_from_row(row: Row, *, where: str, number: int, kind: Kind, columns: Columns) -> Prompt:
    """The prompt that a row holds.

    Args:
        row: Column to value.
        where: The file or data set, for error messages.
        number: The row's number in it.
        kind: Of the prompt.
        columns: Where its parts stand.

    Raises:
        BadRow: It lacks a column, or has no text in it.
    """
    fields = _Fields(row, where, number)
    messages = columns.messages
    if messages is None and MESSAGES in row and not row.keys() & set(columns.prompt):
        messages = MESSAGES
    if messages is None:
        parts = [fields.text(column) for column in columns.prompt]
        text = "\n\n".join(part for part in parts if part)
        if not text:
            fields.refuse(f"{' and '.join(columns.prompt)} is empty", "an empty prompt")
        turns: tuple[Turn, ...] = ()
        answer = None
    else:
        *before, last = fields.conversation(messages, columns.most_turns)
        answer = None
        if last.role == "assistant":
            answer = last.text
            *before, last = before
        turns, text = tuple(before), last.text
    if columns.system and (system := fields.text(columns.system)):
        turns = (Turn("system", system), *(turn for turn in turns if turn.role != "system"))
    if columns.response:
        answer = fields.text(columns.response)
    elif kind == "harmful":
        # What somebody answered to a harmful prompt is no right answer.
        answer = None
    target = fields.text(columns.target) if columns.target else None
    refusal = fields.text(columns.refusal) if columns.refusal and kind == "harmful" else None
    return Prompt(
        text,
        kind,
        answer or None,
        target=target or None,
        turns=turns,
        refusal=refusal or None,
    )


class _Fields:
    """A row's values, with its place for error messages."""

    def __init__(self, row: Row, where: str, number: int) -> None:
        self._row, self._where, self._number = row, where, number

    def refuse(self, problem: str, reason: str) -> None:
        raise BadRow(self._where, self._number, problem, reason=reason)

    def value(self, column: str) -> Any:
        if column not in self._row:
            listed = ", ".join(map(str, self._row)) or "none"
            self.refuse(
                f"there is no column {column!r}. Its columns: {listed}.", f"no column {column!r}"
            )
        return self._row[column]

    def text(self, column: str) -> str:
        """Its text without spaces around it; of null, none."""
        value = self.value(column)
        return "" if value is None else self._checked(value, column)

    def _checked(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            shown = repr(value)
            self.refuse(
                f"{name} is {type(value).__name__} ({shown[:60]}), not text", f"{name} is not text"
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON can hold halves of a character (\ud83d alone), which no tokenizer takes.
            self.refuse(
                f"{name} holds half a character (a lone surrogate), which is no text",
                "half a character",
            )
        return str(value.strip())

    def conversation(self, column: str, most_turns: int | None) -> list[Turn]:
        """The turns, of which the last is the user's, or the assistant's after the user's."""
        value = self.value(column)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                self.refuse(f"{column} is not JSON ({error})", f"{column} is not JSON")
        if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
            self.refuse(
                f"{column} is no list of messages; accepted is a list of {{role, content}}",
                f"{column} is no list of messages",
            )
        turns = [self._turn(turn, f"{column}[{i}]") for i, turn in enumerate(value)]
        spoken = [turn for turn in turns if turn.role != "system"]
        wanted = ["user" if i % 2 == 0 else "assistant" for i in range(len(spoken))]
        if (
            not spoken
            or [turn.role for turn in spoken] != wanted
            or len(turns) > len(spoken) + 1
            or any(turn.role == "system" for turn in turns[1:])
        ):
            roles = ", ".join(turn.role for turn in turns) or "none"
            self.refuse(
                f"{column} has the roles {roles}; accepted are user and assistant by turns, the "
                "user first, with one system message before them",
                f"the roles of {column}",
            )
        if most_turns is not None:
            spoken = spoken[: 2 * most_turns]
        return [*(turn for turn in turns if turn.role == "system"), *spoken]

    def _turn(self, turn: Mapping[str, Any], name: str) -> Turn:
        role = turn.get("role")
        if role not in ROLES:
            self.refuse(
                f"{name}.role is {role!r}; accepted are {', '.join(ROLES)}",
                "a message's role",
            )
        text = self._checked(turn.get("content"), f"{name}.content")
        if not text:
            self.refuse(f"{name}.content is empty", "an empty message")
        return Turn(role, text)  # type: ignore[arg-type]
