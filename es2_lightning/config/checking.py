"""Checks a composed config: its keys, types, ranges, missing values and secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from es2_lightning.config.overrides import accepted_keys, is_typed, unknown_key_message
from es2_lightning.config.secrets import refuse_secrets
from es2_lightning.config.wording import accepted_by
from es2_lightning.errors import UserError
from es2_lightning.ranges import KEY, Accepts


def check_config(config: DictConfig) -> None:
    """Checks all of a composed config, without Hydra's node, that its schema can tell.

    Raises:
        UserError: on the first mistake.
    """
    _check_keys(config, config)
    try:
        missing = sorted(OmegaConf.missing_keys(config))
    except OmegaConfBaseException as error:
        raise UserError(explain(error, config)) from error
    if missing:
        raise UserError(
            f"{missing[0]} has no value. Give it one: {missing[0]}=<value>."
            + (f" Also missing: {', '.join(missing[1:])}." if missing[1:] else "")
        )
    refuse_secrets(config)
    _check_ranges(config)


def to_object(config: DictConfig) -> Any:
    """The typed config: instances of the schema's dataclasses, plain containers elsewhere.

    Raises:
        UserError: an interpolation cannot be resolved, or gives a value of the wrong type.
    """
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, config)) from error


def explain(error: BaseException, base: DictConfig | None = None) -> str:
    """A composing error in one message: which key, which value, and what is accepted.

    Args:
        error: raised by Hydra's loader or by OmegaConf.
        base: a config that composed, for suggestions.
    """
    chain = list(_chain(error))
    user_error = next((e for e in chain if isinstance(e, UserError)), None)
    if user_error is not None:
        return str(user_error)
    cause = next((e for e in chain if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    where = _where(error)
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    if cause is None:
        return _without_hints(where + _first_words(error))
    key, schema = str(cause.full_key), cause.object_type
    if isinstance(cause, InterpolationResolutionError):
        reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", _first_words(cause))
        return f"{where}{key} cannot be resolved: {reason.strip(chr(34))}."
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and is_dataclass(schema):
        accepted = [f.name for f in fields(schema)]
        return where + unknown_key_message(base or OmegaConf.create(), key, accepted)
    words = accepted_by(schema, str(cause.key)) if is_dataclass(schema) else ""
    if isinstance(cause.parent_node, ListConfig) and not words:
        owner, name = cause.parent_node._get_parent(), cause.parent_node._key()
        words = accepted_by(OmegaConf.get_type(owner), str(name)) if owner is not None else ""
    if words:
        return f"{where}{key}={_shown(cause.value)} is not accepted. Accepted: {words}."
    return _without_hints(f"{where}{key}: {_first_words(cause)}")


def _check_keys(node: DictConfig, root: DictConfig, prefix: str = "") -> None:
    # `+loss={kl_wieght: 1}` reaches typed nodes past the check of single overrides.
    for name in node:
        key = str(name)
        child = node._get_node(name)
        if is_typed(node) and key not in accepted_keys(node):
            raise UserError(unknown_key_message(root, f"{prefix}{key}", accepted_keys(node)))
        if isinstance(child, DictConfig) and not (
            child._is_none() or child._is_missing() or child._is_interpolation()
        ):
            _check_keys(child, root, f"{prefix}{key}.")


def _check_ranges(node: DictConfig, prefix: str = "") -> None:
    schema = OmegaConf.get_type(node)
    ranges = (
        {f.name: f.metadata[KEY] for f in fields(schema) if KEY in f.metadata}
        if is_dataclass(schema)
        else {}
    )
    for name in node:
        key = str(name)
        try:
            value = node[name]
        except InterpolationResolutionError as error:
            raise UserError(explain(error)) from error
        full_key = f"{prefix}{key}"
        if isinstance(value, DictConfig):
            _check_ranges(value, f"{full_key}.")
        elif key in ranges and value is not None and not _passes(ranges[key], value):
            words = accepted_by(schema, key)
            raise UserError(f"{full_key}={_shown(value)} is not accepted. Accepted: {words}.")


def _passes(accepts: Accepts, value: Any) -> bool:
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    try:
        return bool(accepts.test(plain))
    except (TypeError, ValueError):  # Not even comparable, such as text with a number.
        return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _where(error: BaseException) -> str:
    # Hydra names the file so, and OmegaConf's error below it does not know it.
    found = re.match(r"In '([^']+)'", str(error))
    # Of a choice that is missing it names the primary config, whichever file asked for it.
    is_true = isinstance(error, HydraException) and not isinstance(error, MissingConfigException)
    return f"In {found[1]}.yaml: " if found and is_true else ""


def _first_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and re.match(r"In '[^']+':", lines[0]):
        lines[0] = re.sub(r"^In '[^']+':\s*", "", lines[0])
    told = [
        line for line in lines if not re.match(r"(full_key|object_type|reference_type)\b", line)
    ]
    return " ".join(told) if isinstance(error, HydraException) else (told or [repr(error)])[0]


def _without_hints(message: str) -> str:
    # Neither is of use: `+key` sets what nobody reads, and the search path is Hydra's own affair.
    message = re.sub(r"\s*To append to your (config|default list) use \+\S+", "", message)
    return re.sub(r"\s*(Config search path|Search path):.*", "", message, flags=re.DOTALL)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
