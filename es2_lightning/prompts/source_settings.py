"""What a config says of one source of prompts: a path, or a mapping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from es2_lightning.errors import UserError
from es2_lightning.prompts.labels import Labels
from es2_lightning.prompts.prompt import Kind
from es2_lightning.prompts.row_files import READERS
from es2_lightning.prompts.rows import Columns

WORDS = (
    "path",
    "name",
    "revision",
    "split",
    "load",
    "column",
    "columns",
    "response",
    "target",
    "refusal",
    "system",
    "messages",
    "most_turns",
    "label",
    "weight",
    "most",
)


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """One file or data set of the Hub.

    Attributes:
        path: A file, a folder in the Hub's layout, or a Hub id.
        key: Where it stands in the config, with its value, for error messages.
        columns: Where a prompt's parts stand in a row.
        labels: Which rows are of which class; None: all are of the class that names the source.
        weight: Its share among the sources of its class; None: all of its prompts are taken.
        most: The most prompts, drawn at random; None: all.
        name: A Hub data set's configuration.
        revision: A Hub data set's commit, tag or branch.
        split: A Hub data set's split.
        load: Further words of `datasets.load_dataset`.
    """

    path: str
    key: str
    columns: Columns
    labels: Labels | None = None
    weight: float | None = None
    most: int | None = None
    name: str | None = None
    revision: str | None = None
    split: str = "train"
    load: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path | None:
        """The path, where it is a file's or looks like one."""
        path = Path(self.path).expanduser()
        looks_local = self.path.startswith((".", "~", "/")) and not path.is_dir()
        return path if path.is_file() or path.suffix in READERS or looks_local else None

    @classmethod
    def parse(cls, node: Any, *, key: str, defaults: Mapping[str, Any]) -> SourceSettings:
        """From a path or a mapping.

        Args:
            node: The config node.
            key: Where it stands in the config.
            defaults: `column`, `response`, `target`, `refusal` and `most` where the node does not
                say.

        Raises:
            UserError: A word or value is not accepted.
        """
        if isinstance(node, str):
            return cls._from({**defaults, "path": node}, key=f"{key}={node}")
        if not isinstance(node, Mapping):
            raise UserError(
                f"{key}={node}: accepted are a path, {{path: …, column: …}}, or a list of them"
            )
        # A config with `columns` or `messages` needs no `column` beside it.
        own = {"column": None} if "columns" in node or "messages" in node else {}
        for word in node:
            if word not in WORDS:
                raise UserError(f"{key}.{word}: accepted are {', '.join(WORDS)}")
        if not node.get("path"):
            raise UserError(f"{key}: path is needed")
        return cls._from({**defaults, **own, **node}, key=f"{key}.path={node['path']}", at=key)

    @classmethod
    def _from(cls, words: Mapping[str, Any], *, key: str, at: str | None = None) -> SourceSettings:
        at = at or key
        for word in (
            "path",
            "name",
            "revision",
            "split",
            "column",
            "response",
            "target",
            "refusal",
        ):
            _check(words, word, (str,), "text", at)
        for word in ("system", "messages"):
            _check(words, word, (str,), "a column's name", at)
        for word in ("most", "most_turns"):
            _check(words, word, (int,), "a whole number ≥ 1", at)
        _check(words, "weight", (int, float), "a number > 0", at)
        label = words.get("label")
        return cls(
            path=words["path"],
            key=key,
            columns=Columns(
                prompt=_columns(words, at),
                response=words.get("response"),
                target=words.get("target"),
                refusal=words.get("refusal"),
                system=words.get("system"),
                messages=words.get("messages"),
                most_turns=words.get("most_turns"),
            ),
            labels=None if label is None else Labels.parse(label, f"{at}.label"),
            weight=words.get("weight"),
            most=words.get("most"),
            name=words.get("name"),
            revision=words.get("revision"),
            split=words.get("split") or "train",
            load=dict(words.get("load") or {}),
        )


def parse_sources(
    node: Any, *, kind: Kind, key: str, defaults: Mapping[str, Any], labelled: bool = False
) -> list[SourceSettings]:
    """One source, or a list of them.

    Args:
        node: The config node.
        kind: What is wanted of them.
        key: Where the node stands in the config.
        defaults: As of `SourceSettings.parse`.
        labelled: Whether each needs a label.

    Raises:
        UserError: A word or value is not accepted, or a label is missing or not of that kind.
    """
    if isinstance(node, Sequence) and not isinstance(node, str):
        if not node:
            raise UserError(f"{key} is empty; at least one source is needed")
        sources = [
            SourceSettings.parse(one, key=f"{key}[{i}]", defaults=defaults)
            for i, one in enumerate(node)
        ]
    else:
        sources = [SourceSettings.parse(node, key=key, defaults=defaults)]
    for source in sources:
        if labelled and source.labels is None:
            raise UserError(
                f"{source.key}: label is needed, the column that tells the classes apart: "
                f"{key}={{path: …, label: …}}"
            )
        if source.labels is not None and kind not in source.labels.kinds.values():
            raise UserError(
                f"{source.key}: its label names no {kind} rows; accepted is a label with {kind}: "
                "[…], the labels of that class"
            )
    return sources


def _columns(words: Mapping[str, Any], key: str) -> tuple[str, ...]:
    columns = words.get("columns")
    if columns is None:
        return (words.get("column") or "prompt",)
    if isinstance(columns, str):
        return (columns,)
    several = tuple(columns) if isinstance(columns, Sequence) else ()
    if not several or not all(isinstance(column, str) for column in several):
        raise UserError(f"{key}.columns={columns}: accepted is a list of columns' names")
    return several


def _check(
    words: Mapping[str, Any], word: str, types: tuple[type, ...], accepted: str, key: str
) -> None:
    value = words.get(word)
    if value is None:
        return
    right = isinstance(value, types) and not isinstance(value, bool)
    if not right or (isinstance(value, (int, float)) and not 0 < value < math.inf):
        raise UserError(f"{key}.{word}={value} is not accepted. Accepted: {accepted}.")
