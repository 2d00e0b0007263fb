"""Reads the words on the command line, and checks the keys that they set.

Hydra's own messages name the mistake in its own terms, and for an unknown key they advise `+key`,
which sets it where nobody reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import split_key

from es2_lightning.config.wording import did_you_mean, listed, nearest_key
from es2_lightning.errors import UserError


def parse(words: Sequence[str], loader: ConfigLoaderImpl | None = None) -> list[Override]:
    """The overrides that stand in `words`.

    Raises:
        UserError: a word is not an override.
    """
    parser = OverridesParser.create(config_loader=loader)
    parsed = []
    for word in words:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException as error:
            raise UserError(_syntax_message(word, error)) from None
    return parsed


def _syntax_message(word: str, error: HydraException) -> str:
    if "=" not in word and not word.startswith("~"):
        return f"'{word}' is not an override. Accepted: key=value, or a flag (see --help)."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if not line.startswith("Error parsing")), lines[0])
    reason = reason.partition(" expecting ")[0]
    return (
        f"'{word}' cannot be read ({reason}). Accepted: key=value; a value with spaces, commas, "
        "brackets, quotes, or a = in it stands in quotes: 'key=\"the value\"'."
    )


def check_key(base: DictConfig, override: Override, groups: Sequence[str]) -> None:
    """Checks that the key that `override` sets is there, with or without `+`.

    Args:
        base: the config without the overrides that set keys.
        groups: the config groups, which are accepted at the top as well.

    Raises:
        UserError: no such key. In a typed node it can never be set; in a free-form one it can,
            with `+`.
    """
    key = override.key_or_group
    if "/" in key or override.package is not None:
        kin = [group for group in groups if group.startswith("hydra/") == key.startswith("hydra/")]
        raise UserError(
            f"{override.input_line}: there is no config group {key}."
            f"{did_you_mean(key, kin)} Groups: {listed(kin)}."
        )
    node: Any = base
    parts = split_key(key)
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth])
        if not isinstance(node, DictConfig):
            if node is None or OmegaConf.is_config(node):
                return  # A list, or a node without a value: Hydra's own check serves.
            raise UserError(f"{override.input_line}: {path} is a value and has no keys below it.")
        if node._is_none() or node._is_missing() or node._is_interpolation():
            return
        accepted = accepted_keys(node)
        if part not in accepted:
            adds = override.is_add() or override.is_force_add()
            if adds and not is_typed(node):
                return
            unknown = ".".join(parts[: depth + 1])
            raise UserError(_unknown_key(base, node, unknown, accepted, groups, override))
        if override.is_delete() and is_typed(node) and depth == len(parts) - 1:
            raise UserError(
                f"{override.input_line}: {key} cannot be left out. Accepted: {key}=<value>."
            )
        child = node._get_node(part)
        if child is None:
            return  # A typed field that nothing has set yet.
        node = child if OmegaConf.is_config(child) else _value(child)


def unknown_key_message(base: DictConfig, key: str, accepted: Sequence[str]) -> str:
    """That `key` is not one of the `accepted` keys of its node, and which is nearest."""
    parent = key.rpartition(".")[0]
    suggestion = nearest_key(key, accepted, list(all_keys(base)))
    where = f"Keys of {parent}" if parent else "Keys"
    return f"{key} is not a key.{suggestion} {where}: {listed(accepted)}."


def _unknown_key(
    base: DictConfig,
    node: DictConfig,
    key: str,
    accepted: list[str],
    groups: Sequence[str],
    override: Override,
) -> str:
    if node is base:
        accepted = sorted({*accepted, *(group for group in groups if "/" not in group)} - {"hydra"})
    message = f"{override.input_line}: {unknown_key_message(base, key, accepted)}"
    if not is_typed(node):
        message += f" {key.rpartition('.')[0] or 'This config'} takes new keys with a +: "
        message += f"+{override.input_line}"
    return message


def is_typed(node: DictConfig) -> bool:
    """Whether a dataclass says which keys the node has."""
    return is_dataclass(OmegaConf.get_type(node))


def accepted_keys(node: DictConfig) -> list[str]:
    """The keys of a node: its dataclass's fields where it is typed, else those that it has."""
    schema = OmegaConf.get_type(node)
    if is_dataclass(schema):
        own = [f.name for f in fields(schema)]
        # Hydra's own node stands in our root without being declared there.
        return [*own, "hydra"] if node._get_parent() is None else own
    return [str(key) for key in node]


def all_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the config that holds a value, without Hydra's."""
    for name in node:
        key = str(name)
        child = node._get_node(name)
        if key == "hydra" and not prefix:
            continue
        if isinstance(child, DictConfig) and not (
            child._is_none() or child._is_missing() or child._is_interpolation()
        ):
            yield from all_keys(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _value(node: Any) -> Any:
    value = node._value()
    return None if value is None or value == "???" else value
