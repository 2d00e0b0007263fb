"""A model preset selects other groups' choices; the experiment overrides it, the user both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CASES = {
    "": ("toy.Organism", 1.0, 1.0, "organism"),
    "model=mistral": ("toy.Real", 0.5, 2.0, "mistralai/Mistral"),
    "model=mistral loss.kl_weight=4": ("toy.Real", 4.0, 2.0, "mistralai/Mistral"),
    "model=mistral loss=paper": ("toy.Real", 2.0, 2.0, "mistralai/Mistral"),
    "loss=paper model=mistral data=organism": ("toy.Organism", 2.0, 2.0, "mistralai/Mistral"),
    "experiment=paper": ("toy.Other", 9.0, 2.0, "mistralai/Mistral"),
    "experiment=paper model=organism": ("toy.Other", 9.0, 1.0, "organism"),
    "experiment=paper data=real optimizer=lion": ("toy.Real", 9.0, 3.0, "mistralai/Mistral"),
    "experiment=paper loss.kl_weight=3": ("toy.Other", 3.0, 2.0, "mistralai/Mistral"),
}


@pytest.mark.parametrize("words", CASES)
def test_who_wins(words: str, precheck: Callable[..., list[Any]]) -> None:
    (config,) = precheck(*words.split())
    assert (
        config.data["_target_"],
        config.loss.kl_weight,
        config.optimizer.lr,
        config.model.name_or_path,
    ) == CASES[words]
