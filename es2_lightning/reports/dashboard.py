"""A W&B workspace, written down or saved; updated where there is one already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb_workspaces.workspaces as ws

from es2_lightning.atomic_files import write_atomically
from es2_lightning.errors import UserError

FOLDER = Path("outputs") / "dashboards"


def write_specification(sections: Sequence[ws.Section], project: str, *, name: str) -> Path:
    """Write what would be sent for a new workspace, as JSON; asks no server.

    Returns:
        The file.
    """
    workspace = ws.Workspace(entity="", project=project, name=name, sections=list(sections))
    return _write(project, {"specification": workspace._spec})


def save_workspace(
    sections: Sequence[ws.Section],
    project: str,
    *,
    entity: str | None,
    name: str,
    url: str | None,
) -> str:
    """Make a workspace, or bring one up to date; its other sections stay.

    Args:
        sections: Ours.
        project: Of the runs.
        entity: Whose it is; None: the account's own.
        name: The workspace's.
        url: Of the workspace to update; None: a new one.

    Returns:
        Its address.

    Raises:
        UserError: W&B refuses.
    """
    import wandb

    try:
        if url is None:
            owner = entity or str(wandb.Api().default_entity)
            workspace = ws.Workspace(
                entity=owner, project=project, name=name, sections=list(sections)
            )
        else:
            workspace = ws.Workspace.from_url(url)
            ours = {section.name for section in sections}
            others = [section for section in workspace.sections if section.name not in ours]
            workspace.name, workspace.sections = name, [*sections, *others]
        workspace.save()
    except Exception as error:  # The library passes on what its HTTP client raises.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        known = "" if url is None else f" If {url} is no more, remove {_path(project)}."
        raise UserError(
            f"The workspace was not saved: {reason} Accepted: a project to which `wandb login` or "
            f"WANDB_API_KEY gives access, or dry_run=true.{known}"
        ) from error
    _write(project, {"url": workspace.url, "specification": workspace._spec})
    return str(workspace.url)


def saved_url(project: str, *, entity: str | None = None) -> str | None:
    """Of the workspace that was made from this folder; None: there is none.

    Args:
        project: Of the runs.
        entity: Another's workspace is not meant; None: whoever's it is.
    """
    try:
        found: str | None = json.loads(_path(project).read_text("utf-8")).get("url")
    except (OSError, ValueError, AttributeError):
        return None
    if found is not None and entity is not None and f"/{entity}/" not in found:
        return None
    return found


def _write(project: str, content: dict[str, Any]) -> Path:
    path = _path(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (url := saved_url(project)) is not None:
        content = {"url": url, **content}
    write_atomically(path, json.dumps(content, indent=1, default=str) + "\n")
    return path.absolute()


def _path(project: str) -> Path:
    return FOLDER / f"{project}.json"
