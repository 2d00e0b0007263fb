"""What a user sets about a ranker; light to import, so that config errors answer at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from es2_lightning.errors import UserError

Context = Literal["list", "response"]
CONTEXTS: tuple[Context, ...] = get_args(Context)


def is_number(value: object) -> bool:
    """Whether it is one that is finite: neither a text nor true or false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def is_whole(value: object) -> bool:
    """Whether it is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class RankerShape:
    """What a `ResponseRanker` is made of. The paper says "one encoder layer" and no numbers; those
    here are of a sibling method by its authors, with fewer than half a million weights.

    Attributes:
        hidden_size: H.
        num_heads: Of the attention; divides `hidden_size`.
        feedforward_size: Of the layer's two-layer network.
        dropout: In training.
        temperature: Scores are cosines divided by it.
        context: `list`: the instruction and all responses attend to each other. `response`: the
            instruction and one response, so that a score does not depend on the others.

    Raises:
        UserError: A value that is not accepted.
    """

    hidden_size: int = 64
    num_heads: int = 1
    feedforward_size: int = 256
    dropout: float = 0.1
    temperature: float = 0.1
    context: Context = "list"

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_heads", "feedforward_size"):
            if not is_whole(getattr(self, name)):
                raise UserError(f"{name}={getattr(self, name)}: accepted is a whole number ≥ 1")
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}"
            )
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise UserError(f"dropout={self.dropout}: accepted is a number from 0 to below 1")
        if not (is_number(self.temperature) and self.temperature > 0):
            raise UserError(f"temperature={self.temperature}: accepted is a number > 0")
        if self.context not in CONTEXTS:
            raise UserError(f"context={self.context}: accepted are {' and '.join(CONTEXTS)}")
