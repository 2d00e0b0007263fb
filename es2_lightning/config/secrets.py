"""Keeps secrets out of the run's folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import InterpolationValidationError
from omegaconf.resolvers import oc

from es2_lightning.errors import UserError

# `token` alone or what is known to be one: eos_token or max_new_tokens are no secrets.
_SECRET = re.compile(
    r"(^|.*_)(api_?keys?|passwords?|passwd|secrets?|secret_key|access_key"
    r"|(access|api|auth|bearer|hf|hub|hugging_?face|use_auth|wandb)_token)$|^token$",
    re.IGNORECASE,
)
MASK = "***"


def is_secret(key: str) -> bool:
    """Whether a key's name says that its value is a secret."""
    return bool(_SECRET.match(key))


def refuse_secrets(config: DictConfig) -> None:
    """Refuses secrets that are written out, since Hydra saves the config and the overrides.

    Raises:
        UserError: a key that looks like a secret has a value that is not an interpolation.
    """
    for key, value in _raw_leaves(config):
        if is_secret(key.rpartition(".")[2]) and isinstance(value, str) and value:
            if "${" in value:
                continue
            raise UserError(
                f"{key} looks like a secret, and the config is saved in the run's folder. "
                f"Accepted: {key}='${{oc.env:NAME}}', which reads the environment variable NAME "
                "and is saved as it is written here."
            )


def refuse_environment(variables: DictConfig) -> None:
    """Refuses secrets, and all of W&B's variables, that Hydra is to set for a job, and to save.

    Args:
        variables: `hydra.job.env_set`.

    Raises:
        UserError: one of them is written out.
    """
    for name, value in _raw_leaves(variables):
        if (is_secret(name) or name.startswith("WANDB_")) and "${" not in str(value):
            raise UserError(
                f"hydra.job.env_set.{name}: the value would be saved in the run's folder. "
                f"Accepted: the variable in the environment of the command, {name}=… python -m …"
            )


def resolved(config: DictConfig) -> Any:
    """The config as plain containers, its interpolations resolved, except what could be a secret.

    Environment variables (`oc.env`) stay as they are written; what else stands under a key that
    looks like a secret is masked.
    """
    OmegaConf.register_new_resolver("oc.env", _env_as_written, replace=True)
    try:
        return _resolve(config)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def save_resolved(config: DictConfig, path: Path | str) -> None:
    """Writes `resolved(config)` as YAML to `path`, whose folder is made where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not OmegaConf.to_yaml, which would take a text with "${" in it for an interpolation.
    text = yaml.dump(
        resolved(config), Dumper=get_omega_conf_dumper(), sort_keys=False, allow_unicode=True
    )
    path.write_text(text, "utf-8")


def _env_as_written(name: str, *default: Any) -> str:
    return "${oc.env:" + ",".join([name, *map(str, default)]) + "}"


def _resolve(node: Any) -> Any:
    if isinstance(node, DictConfig):
        return {key: _resolve_item(node, key) for key in node}
    if isinstance(node, ListConfig):
        return [_resolve_item(node, index) for index in range(len(node))]
    if isinstance(node, Enum):
        return node.name
    return str(node) if isinstance(node, Path) else node


def _resolve_item(node: DictConfig | ListConfig, key: Any) -> Any:
    if OmegaConf.is_missing(node, key):
        return "???"
    try:
        value = _resolve(node[key])
    except InterpolationValidationError:
        # A typed value from the environment: the text that stands for it is not of that type.
        raw: Any = node._get_node(key)
        value = raw._value()
    if is_secret(str(key)) and isinstance(value, str) and value and "${oc.env:" not in value:
        return MASK
    return value


def _raw_leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    plain: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    items = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for name, value in items:
        key = str(name)
        if isinstance(value, (dict, list)):
            yield from _raw_leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
