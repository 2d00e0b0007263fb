"""What values a setting accepts: declared in a dataclass field's metadata, checked by the config.

lr: float = field(default=1e-6, metadata=more_than(0))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

KEY = "accepts"
"""The key in a field's metadata under which its `Accepts` stands."""


@dataclass(frozen=True)
class Accepts:
    """Which values a field accepts. `None` passes: whether it may be None is the type's matter."""

    test: Callable[[Any], bool]
    words: str


def accepts(words: str, test: Callable[[Any], bool]) -> Mapping[str, Accepts]:
    """Metadata for a field that accepts what passes `test`, described by `words`."""
    return {KEY: Accepts(test=test, words=words)}


def at_least(low: float) -> Mapping[str, Accepts]:
    """low ≤ value."""
    return accepts(f"a number ≥ {low}", lambda value: value >= low)


def more_than(low: float) -> Mapping[str, Accepts]:
    """low < value."""
    return accepts(f"a number > {low}", lambda value: value > low)


def between(low: float, high: float) -> Mapping[str, Accepts]:
    """low ≤ value ≤ high."""
    return accepts(f"a number from {low} to {high}", lambda value: low <= value <= high)


def one_of(*choices: Any) -> Mapping[str, Accepts]:
    """One of the named choices."""
    return accepts(" | ".join(str(choice) for choice in choices), lambda value: value in choices)
