"""The whole config of `python -m es2_lightning.dashboard`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from es2_lightning.errors import UserError
from es2_lightning.ranges import accepts


def _are_names(names: list[str]) -> bool:
    return bool(names) and all(isinstance(name, str) and "/" not in name for name in names)


@dataclass
class DashboardConfig:
    """Which workspace is made."""

    project: str = "es2-lightning"
    """The W&B project of the runs."""
    entity: str | None = None
    """A user or a team; null: the account's own."""
    name: str = "ES2"
    attacks: list[str] = field(
        default_factory=lambda: ["direct", "scav", "scav_worst"],
        metadata=accepts("a list of attacks, as in attack=[…]", _are_names),
    )
    url: str | None = None
    """Of a workspace to update; null: the one that was made from here, or a new one."""
    dry_run: bool = False
    """Only write what would be sent."""


def check_dashboard(config: DashboardConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: The library is not installed, or a name or an address is none.
    """
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            "The dashboard is made by wandb-workspaces, which is not installed: "
            "pip install 'es2-lightning[dashboards]'"
        )
    if not re.fullmatch(r"[\w.-]+", config.project):
        raise UserError(
            f"project={config.project} is not accepted. Accepted: a W&B project's name; whose it "
            "is, is told by entity=…"
        )
    if config.url is not None and "nw=" not in config.url:
        raise UserError(
            f"url={config.url} is no workspace's. Accepted: the address of a saved view, such as "
            "https://wandb.ai/<entity>/<project>?nw=<view>"
        )
