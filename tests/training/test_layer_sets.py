"""The layer set, from what the user chose and the model's depth alone."""

from __future__ import annotations

from typing import Any

import pytest

from es2_lightning.errors import UserError
from es2_lightning.training.layer_sets import select_layers, with_terminal
from es2_lightning.training.settings import LayerSettings


@pytest.mark.parametrize(
    ("values", "layers"),
    [
        ({"select": "list", "indices": [32, 10]}, [10, 32]),
        ({"select": "list", "indices": [10, -1]}, [10, 32]),
        ({"select": "single", "index": -2}, [31]),
        ({"select": "all"}, list(range(1, 33))),
        ({"select": "every_nth", "n": 10}, [10, 20, 30, 32]),
        ({"select": "every_nth", "n": 8}, [8, 16, 24, 32]),
        ({"select": "emergence_terminal"}, None),
        ({"select": "emergence_terminal", "emergence": 10}, [10, 32]),
        ({"select": "emergence_terminal", "emergence": 32}, [32]),
    ],
)
def test_selected(values: dict[str, Any], layers: list[int] | None) -> None:
    assert select_layers(LayerSettings(**values), 32) == layers


def test_terminal() -> None:
    assert with_terminal(10, 32) == [10, 32]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"select": "list"}, r"layers\.indices is empty.*\[10,32\]"),
        ({"select": "list", "indices": [10, 33]}, r"layers\.indices: layer 33 is out of range.*32"),
        ({"select": "list", "indices": [-33]}, r"layers\.indices: layer -33"),
        ({"select": "list", "indices": [0, 3]}, r"layer 0 holds the input embeddings"),
        ({"select": "list", "indices": [32, -1]}, r"\[32, -1\] names a layer twice"),
        ({"select": "single", "index": 40}, r"layers\.index: layer 40"),
        ({"select": "every_nth", "n": 33}, r"layers\.n=33: the model has 32 layers"),
        ({"select": "emergence_terminal", "emergence": 99}, r"layers\.emergence: layer 99"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        select_layers(LayerSettings(**values), 32)
