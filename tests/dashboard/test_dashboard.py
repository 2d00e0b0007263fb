"""The dashboard against a stand-in for W&B's server; its panels are tested in test_loggers.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..commands import run_command

pytest.importorskip("wandb_workspaces")


class Server:
    """Keeps the views that are sent."""

    def __init__(self) -> None:
        self.views: dict[str, Any] = {}

    def upsert(self, view: Any) -> Any:
        self.views[view.name] = view
        return {"upsertView": {"view": {"name": view.name, "id": f"id of {view.name}"}}}

    def read(self, entity: str, project: str, name: str) -> Any:
        assert (entity, project) == ("me", "mine")
        return self.views[name]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    import wandb
    from wandb_workspaces.workspaces import interface, internal

    server = Server()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wandb, "Api", lambda: None)
    monkeypatch.setattr(interface, "get_app_url", lambda _: "https://wandb.ai")
    monkeypatch.setattr(internal, "upsert_view2", server.upsert)
    monkeypatch.setattr(internal.View, "from_name", server.read)
    return server


def names(view: Any) -> list[str]:
    return [section.name for section in view.spec.section.panel_bank_config.sections]


def test_a_workspace_is_made_once_and_then_updated(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from wandb_workspaces import workspaces as ws

    from es2_lightning.dashboard import main

    def dashboard(*words: str) -> str:
        entity = [] if any(word.startswith("entity=") for word in words) else ["entity=me"]
        run_command(main, "project=mine", *entity, *words, monkeypatch=monkeypatch)
        written = json.loads((tmp_path / "outputs" / "dashboards" / "mine.json").read_text())
        return str(written["url"])

    url = dashboard()
    assert url.startswith("https://wandb.ai/me/mine?nw=")
    (view,) = server.views.values()
    assert "Safety and its price" in names(view)
    # Somebody adds a section of their own.
    changed = ws.Workspace.from_url(url)
    changed.sections = [ws.Section(name="My own"), *changed.sections]
    changed.save()
    assert dashboard("attacks=[direct,gcg]") == url
    (view,) = server.views.values()
    assert names(view).count("Safety and its price") == names(view).count("My own") == 1
    assert "evaluation/tuned/gcg/defended" in view.model_dump_json()
    assert dashboard("dry_run=true") == url, "what is only looked at forgets nothing"
    assert dashboard("entity=you").startswith("https://wandb.ai/you/mine?nw="), "not mine"


def test_what_wandb_refuses_is_a_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wandb_workspaces.workspaces import internal

    from es2_lightning.dashboard import main

    def refuse(view: Any) -> None:
        raise RuntimeError("permission denied")

    monkeypatch.setattr(internal, "upsert_view2", refuse)
    run_command(main, "entity=me", monkeypatch=monkeypatch, status=1)
    error = capsys.readouterr().err
    assert "permission denied" in error and "dry_run=true" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["project=a/b"], "project=a/b is not accepted"),
        (["url=https://wandb.ai/me/mine"], "is no workspace's"),
        (["attacks=[]"], "attacks=[] is not accepted. Accepted: a list of attacks"),
    ],
)
def test_a_mistake_is_a_sentence(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from es2_lightning.dashboard import main

    run_command(main, *words, monkeypatch=monkeypatch, status=2)
    assert message in capsys.readouterr().err
