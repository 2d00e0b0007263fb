"""What values the steering attacks accept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.errors import UserError

C = TypeVar("C", bound=str)
OneChoice = str | Sequence[int]
"""`all` blocks; `last_8` or `middle_8`, all where there are fewer; or layer numbers, negative ones
from the end."""
Layers = OneChoice | Sequence[OneChoice]
"""One choice, or several to choose among."""
_WORD = re.compile("(last|middle)_([1-9][0-9]*)")


def check_choice(key: str, value: str, accepted: Sequence[str]) -> None:
    """Raises UserError unless the value is one of the accepted."""
    if value not in accepted:
        raise UserError(f"{key}={value}: accepted are {', '.join(accepted)}")


def chosen_among(key: str, value: C | Sequence[C], accepted: Sequence[str]) -> tuple[C, ...]:
    """One or several of the accepted words as a tuple.

    Raises:
        UserError: None, or one that is not accepted.
    """
    values: tuple[C, ...] = (value,) if isinstance(value, str) else tuple(value)
    if not values or not all(v in accepted for v in values):
        raise UserError(f"{key}={value}: accepted are {', '.join(accepted)}, or a list of them")
    return values


def check_count(key: str, count: int, *, least: int = 1) -> int:
    """The count. Raises UserError where it is below the least."""
    if count < least:
        raise UserError(f"{key}={count}: accepted is a number ≥ {least}")
    return count


def check_shares(key: str, shares: Sequence[float]) -> tuple[float, ...]:
    """The shares. Raises UserError where there are none, or one is not above 0 and up to 1."""
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UserError(f"{key}={shares}: accepted is a list of shares above 0 and up to 1")
    return tuple(shares)


def check_share(key: str, share: float) -> float:
    """The share. Raises UserError where it is not above 0 and up to 1."""
    if not 0 < share <= 1:
        raise UserError(f"{key}={share}: accepted is a share above 0 and up to 1")
    return share


def one_or_several(key: str, value: float | Sequence[float]) -> tuple[float, ...]:
    """One or several numbers above 0 as a tuple.

    Raises:
        UserError: None, or one that is not above 0.
    """
    values = (value,) if isinstance(value, int | float) else tuple(value)
    if not values or not all(isinstance(v, int | float) and v > 0 for v in values):
        raise UserError(f"{key}={value}: accepted is a number above 0, or a list of such numbers")
    return values


def check_budgets(key: str, budgets: Sequence[float]) -> tuple[float, ...]:
    """Budgets in rising order; none where none are given.

    Raises:
        UserError: One is not above 0.
    """
    if budgets and min(budgets) <= 0:
        raise UserError(f"{key}={list(budgets)}: accepted is a list of numbers above 0, or []")
    return tuple(sorted(set(map(float, budgets))))


def layer_choices(key: str, layers: Layers) -> list[OneChoice]:
    """One or several choices of layers as a list of choices.

    Raises:
        UserError: Of no form that is accepted.
    """
    if isinstance(layers, str):
        choices: list[OneChoice] = [layers]
    elif layers and all(isinstance(n, int) for n in layers):
        choices = [[n for n in layers if isinstance(n, int)]]
    else:
        choices = [n if isinstance(n, str) else list(n) for n in layers if not isinstance(n, int)]
        choices = choices if len(choices) == len(layers) else []
    if not choices or not all(_is_choice(choice) for choice in choices):
        raise UserError(
            f"{key}={layers}: accepted are all, last_8, middle_8 (or any other number), a list of "
            "layer numbers, or a list of such choices"
        )
    return choices


def _is_choice(choice: OneChoice) -> bool:
    if isinstance(choice, str):
        return choice == "all" or bool(_WORD.fullmatch(choice))
    return bool(choice) and all(isinstance(n, int) for n in choice)


def chosen_blocks(key: str, choice: OneChoice, depth: int) -> tuple[int, ...]:
    """A choice as layer numbers 1 … L, rising.

    Raises:
        UserError: One is out of range, or 0.
    """
    if not isinstance(choice, str):
        return block_numbers(key, choice, depth)
    match = _WORD.fullmatch(choice)
    count = min(int(match[2]), depth) if match else depth
    skipped = depth - count
    first = (skipped // 2 if match and match[1] == "middle" else skipped) + 1
    return tuple(range(first, first + count))


def block_numbers(key: str, layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Layer numbers as 1 … L, rising.

    Raises:
        UserError: One is out of range, or 0.
    """
    numbers = {resolve_layer(n, depth, key=key) for n in layers}
    if 0 in numbers:
        raise UserError(
            f"{key}: 0 stands for the input embeddings, which this setting does not reach; "
            f"accepted are 1 … {depth}, and -1 … -{depth} from the end"
        )
    return tuple(sorted(numbers))
