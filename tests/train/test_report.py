"""The page that a run leaves, and the command on it."""

from __future__ import annotations

import shlex

import pytest
import yaml

from ..commands import run_command
from ..reports.page.html_reading import read_page
from .conftest import SMALL, Train


def test_the_command_on_the_page_composes_the_same_config(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from es2_lightning.train import main

    # What a shell, YAML and HTML would each take for something else.
    prompt = 'it\'s <b>"$HOME"</b> & `ls`; 100 % = x'
    escaped = prompt.replace("'", "\\'")
    folder = train(
        *SMALL,
        "evaluate=none",
        "layers=list",
        "layers.indices=[3]",
        f"model.system_prompt='{escaped}'",
    )
    page = read_page((folder / "report.html").read_text("utf-8"))
    assert f"The report: {folder / 'report.html'}" in capsys.readouterr().out
    words = shlex.split(page.commands[0])
    assert words[:3] == ["python", "-m", "es2_lightning.train"]
    run_command(main, *words[3:], "--cfg", "job", "--resolve", monkeypatch=monkeypatch)
    again = yaml.safe_load(capsys.readouterr().out)
    saved = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    assert saved["model"]["system_prompt"] == prompt
    for config in (again, saved):
        config["callbacks"]["checkpoint"].pop("dirpath")  # The run's own folder.
    assert again == saved
