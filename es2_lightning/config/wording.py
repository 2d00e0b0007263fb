"""The words in which a mistake in a config is explained."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from typing import Any

from es2_lightning.ranges import KEY, Accepts

_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "key: value pairs",
    list: "a list",
}


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """' Did you mean …?' for the candidate that is nearest to `word`; empty where none is near."""
    near = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def nearest_key(key: str, accepted: Iterable[str], everywhere: Sequence[str]) -> str:
    """As `did_you_mean`, for a dotted key.

    First among the keys of the same node, then among the keys of the whole config that end alike,
    since `kl_weight=1` is as easily written as `loss.kl_wieght=1`.
    """
    parent, _, leaf = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    by_leaf = {name: prefix + name for name in accepted}
    near = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.6)
    if not near:
        by_leaf = {name.rpartition(".")[2]: name for name in reversed(everywhere)}
        near = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.75)
    return f" Did you mean {by_leaf[near[0]]}?" if near else ""


def listed(names: Iterable[str]) -> str:
    """Names in alphabetical order, with commas."""
    return ", ".join(sorted(names)) or "none"


def accepted_by(schema: Any, key: str) -> str:
    """What the field `key` of the dataclass `schema` accepts; empty where that is not known."""
    field = next((f for f in _fields(schema) if f.name == key), None)
    if field is None:
        return ""
    hint = typing.get_type_hints(schema).get(key, Any)
    accepts = field.metadata.get(KEY)
    words = accepts.words if isinstance(accepts, Accepts) else _type_words(hint)
    if words and type(None) in typing.get_args(hint):
        words += ", or null"
    return words


def _fields(schema: Any) -> tuple[Field[Any], ...]:
    return fields(schema) if is_dataclass(schema) else ()


def _type_words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_words(arg) for arg in args if arg is not type(None))
    if origin is list:
        inner = _type_words(args[0]) if args else ""
        return f"a list, each {inner}" if inner else "a list"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(member.name for member in hint)
    if is_dataclass(hint):
        return f"the keys {listed(f.name for f in _fields(hint))}"
    return _TYPE_WORDS.get(origin or hint, "")
