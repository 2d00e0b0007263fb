"""What types cannot say of the chosen loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from es2_lightning.config.objects import check_words
from es2_lightning.errors import UserError


def chosen_loggers(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The loggers by name, without the words that they share."""
    return {name: dict(node) for name, node in group.items() if isinstance(node, Mapping)}


def check_loggers(group: Mapping[str, Any]) -> None:
    """Refuse what is no logger, and words that one does not take.

    Raises:
        UserError: Which one it is.
    """
    for name, value in group.items():
        if name == "offline":
            if not isinstance(value, bool):
                raise UserError(f"logger.offline={value} is not accepted. Accepted: true or false.")
        elif not isinstance(value, Mapping):
            chosen = ", ".join(chosen_loggers(group)) or "csv, tensorboard, wandb"
            raise UserError(
                f"logger.{name}={value}: {name} is no logger. Accepted: logger.offline, or words "
                f"of a chosen logger ({chosen}), such as logger.wandb.{name}={value}."
            )
        else:
            check_words(value, f"logger.{name}")
            tags = value.get("tags")
            if (tags is not None and not isinstance(tags, Sequence)) or isinstance(tags, str):
                raise UserError(
                    f"logger.{name}.tags={tags} is not accepted. Accepted: a list, "
                    f"logger.{name}.tags=[{tags}]."
                )
