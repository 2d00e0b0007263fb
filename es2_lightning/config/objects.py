"""Builds what a config node names by `_target_`; mistakes in it are told in a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from es2_lightning.config.signatures import accepted_words, missing_package
from es2_lightning.config.wording import did_you_mean, listed
from es2_lightning.errors import UserError

MISTAKES = (TypeError, ValueError, LookupError)
"""What constructors raise for values that they do not take."""


def build(node: Mapping[str, Any], key: str) -> Any:
    """As `hydra.utils.instantiate`.

    Args:
        node: With `_target_`, and what it is called with.
        key: Where the node stands in the config, such as `data.source`.

    Raises:
        UserError: The target is missing, lacks one of the words, or refuses a value.
    """
    _refuse_unknown_words(node, key)
    try:
        return instantiate(node)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            # A constructor knows its own words, not where in the config it stands.
            named = str(cause).startswith(key.partition(".")[0])
            raise cause if named else UserError(f"{key}: {cause}") from error
        if not isinstance(cause, MISTAKES):
            raise
        raise UserError(f"{_shown(node, key)}: {cause}") from error


def build_optimizer(node: Mapping[str, Any]) -> Any:
    """A partial of the optimizer, its values tried on one parameter.

    Raises:
        UserError: As `build`.
    """
    import torch

    optimizer = build({**node, "_partial_": True}, "optimizer")
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1))])
    except MISTAKES as error:
        raise UserError(f"{_shown(node, 'optimizer')}: {error}") from error
    return optimizer


def check_words(node: Mapping[str, Any], key: str) -> None:
    """What the source of a node's target tells of its words, without importing it.

    Where the source does not tell, nothing is refused: `build` does.

    Raises:
        UserError: The target is missing or its package is not there, or it lacks one of the words.
    """
    target = _target_of(node, key)
    if (missing := missing_package(target)) is not None:
        raise UserError(f"{key}._target_={target}: there is no module {missing or target!r}")
    _refuse_others(node, key, accepted_words(target))


def check_number(node: Mapping[str, Any], word: str, key: str) -> None:
    """Raises UserError where the word is given and is no number ≥ 0."""
    value = node.get(word)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and value >= 0):
        raise UserError(f"{key}.{word}={value} is not accepted. Accepted: a number ≥ 0.")


def _target_of(node: Mapping[str, Any], key: str) -> str:
    target = node.get("_target_")
    if not isinstance(target, str) or not target:
        raise UserError(f"{key} has no _target_, the class that it names")
    return target


def _refuse_unknown_words(node: Mapping[str, Any], key: str) -> None:
    target = _target_of(node, key)
    try:
        parameters = inspect.signature(get_object(target)).parameters.values()
    except ImportError as error:
        raise UserError(f"{key}._target_={target}: {error}") from error
    except (TypeError, ValueError):
        return  # It has no signature that can be read.
    except Exception as error:  # Hydra raises its own for names that are no paths.
        raise UserError(f"{key}._target_={target}: {error}") from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    accepted = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    _refuse_others(node, key, accepted)


def _refuse_others(node: Mapping[str, Any], key: str, accepted: Sequence[str] | None) -> None:
    """Raises UserError for a word that is not accepted; None accepts all."""
    if accepted is None:
        return
    for word, value in node.items():
        if word not in accepted and not word.startswith("_"):
            raise UserError(
                f"{key}.{word}={value}: {node['_target_']} takes no {word}."
                f"{did_you_mean(word, accepted)} Accepted: {listed(accepted)}."
            )


def _shown(node: Mapping[str, Any], key: str) -> str:
    values = ", ".join(f"{name}={value}" for name, value in node.items() if name[0] != "_")
    return f"{key} ({values})"
