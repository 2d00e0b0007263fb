"""Which words a method takes, told by its source: nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from es2_lightning.config.objects import check_words
from es2_lightning.config.signatures import accepted_words
from es2_lightning.errors import UserError
from es2_lightning.training.settings import GIVEN_TO_METHODS

OF_ES2 = ("loss", "schedule.kl_threshold", "schedule.order", "layers.terminal_state")
"""Keys, or groups, that a method with a loss of its own does not read."""


def check_method(method: Mapping[str, Any]) -> None:
    """Refuse words that a method does not take.

    Raises:
        UserError: Its class is missing or lacks a word, or a word is what the run hands to it.
    """
    check_words(method, "method")
    for word, value in method.items():
        if word in GIVEN_TO_METHODS:
            raise UserError(
                f"method.{word}={value}: the run hands it to the method. Accepted: what the groups "
                "loss, schedule, layers, optimizer and step say, and the method's own words."
            )


def ignored_words(method: Mapping[str, Any], words: Sequence[str]) -> Iterator[str]:
    """A sentence for each word of the command line that changes nothing with this method.

    Args:
        method: The config node.
        words: The overrides as they were typed.
    """
    taken = accepted_words(method["_target_"])
    if taken is None or "loss" in taken:
        return
    name = method["_target_"].rpartition(".")[2]
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if any(key == own or key.startswith(f"{own}.") for own in OF_ES2):
            yield (
                f"{word} changes nothing: {name} has a loss of its own, and one stage without a "
                "threshold"
            )
