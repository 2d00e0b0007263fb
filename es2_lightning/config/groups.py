"""The config groups and their choices, and the check of a choice on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override

from es2_lightning.config.wording import did_you_mean, listed
from es2_lightning.errors import UserError


class Groups:
    """The groups in all folders that Hydra searches, also those that `hydra.searchpath` adds.

    Args:
        words: the command line's overrides.
    """

    def __init__(self, loader: ConfigLoaderImpl, config_name: str, words: Sequence[str]) -> None:
        added = [word for word in words if word.lstrip("+").startswith("hydra.searchpath=")]
        # Once: making a repository copies all that it has read.
        _, self._repository = loader._parse_overrides_and_create_caching_repo(config_name, added)

    def exists(self, name: str) -> bool:
        """Whether `name` is a group, that is, a folder with choices."""
        return bool(self._repository.group_exists(name))

    def choices(self, name: str) -> list[str]:
        """The names of the group's files; empty where there is no such group."""
        return list(self._repository.get_group_options(name, ObjectType.CONFIG))

    def all_choices(self, name: str) -> list[str]:
        """Also those in the group's own folders, as `folder/choice`; not what begins with `_`."""
        below = self._repository.get_group_options(name, ObjectType.GROUP)
        inner = [f"{folder}/{c}" for folder in below for c in self.all_choices(f"{name}/{folder}")]
        return [c for c in self.choices(name) if not c.startswith("_")] + inner

    def is_global(self, name: str) -> bool:
        """Whether the group's choices spread over the whole config, as experiments do."""
        results = (
            self._repository.load_config(f"{name}/{choice}") for choice in self.choices(name)
        )
        return any(r is not None and r.header.get("package") == "_global_" for r in results)

    @cached_property
    def names(self) -> list[str]:
        """All groups that have choices, with Hydra's own."""
        return list(self._below(""))

    def chosen_by(self, override: Override) -> bool:
        """Whether the override selects a choice of a group, rather than sets a key."""
        if not override.is_sweep_override() and isinstance(override.value(), dict):
            return False
        return self.exists(override.key_or_group)

    def _below(self, parent: str) -> list[str]:
        names = []
        for name in self._repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            names += ([group] if self.choices(group) else []) + self._below(group)
        return names


@dataclass(frozen=True)
class ChoiceCheck:
    """Checks the choice that an override selects.

    Attributes:
        own_values: for a group, how a value that is no choice is written instead, with `{value}`
            for the value or `{list}` for the value in brackets:
            `{"layers": "layers=list layers.indices={list}"}`.
    """

    groups: Groups
    own_values: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, override: Override, *, selected: Mapping[str, Any]) -> None:
        """Raises UserError where there is no such choice.

        Args:
            selected: the groups that have a choice without this override.
        """
        if override.is_delete():
            return
        group, value = override.key_or_group, override.value()
        choices = self.groups.all_choices(group)
        if value is None and not override.is_add():
            raise UserError(
                f"{group}=null is not accepted. To leave a group out: ~{group}. "
                f"Choices of {group}: {listed(choices)}."
            )
        chosen = value if isinstance(value, list) else [value]
        wrong = [item for item in chosen if not self._is_choice(item, choices)]
        if wrong:
            raise UserError(self._message(override, group, wrong[0], choices))
        target = (override.get_key_element() or "").lstrip("+")
        if override.is_add() and target in selected:
            raise UserError(
                f"{override.input_line}: {target} has a choice already. Accepted, in its place: "
                f"{target}={override.get_value_element_as_str()}."
            )

    @staticmethod
    def _is_choice(item: Any, choices: list[str]) -> bool:
        return isinstance(item, str) and item.removesuffix(".yaml") in choices

    def _message(self, override: Override, group: str, wrong: Any, choices: list[str]) -> str:
        text = override.get_value_element_as_str()
        # A path or a Hub id is no slip of the keyboard, however near to a choice.
        like = [choice for choice in choices if ("/" in choice) == ("/" in text)]
        near = did_you_mean(str(wrong), like)
        message = f"{group}={text}: {group} has no choice {wrong or 'without a name'}.{near}"
        if group in self.own_values and text and not near:
            in_brackets = text if text.startswith("[") else f"[{text}]"
            own = self.own_values[group].format(value=text, list=in_brackets)
            message += f" For a value of your own: {own}."
        message += f" Choices of {group}: {listed(choices)}."
        if group in ("hydra/launcher", "hydra/sweeper"):
            message += " More come with pip install 'es2-lightning[sweeps]'."
        return message
