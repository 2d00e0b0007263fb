"""The evaluate command in this process, and a tiny model and adapter to evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from es2_lightning.backbone.adapters import add_lora, save_adapter

from ..commands import run_command
from ..tiny_models import WORDS, tiny_chat_model
from ..train.conftest import Train, train  # noqa: F401

QUICK = (
    "evaluate.harmful_prompts=3",
    "evaluate.validation_prompts=3",
    "evaluate.other_prompts=4",
    "evaluate.max_new_tokens=4",
    "device=cpu",
    "evaluate.batch_size=8",
)

Evaluate = Callable[..., None]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluate:
    """Runs the command with these words in an empty folder."""
    from es2_lightning.evaluate import main

    monkeypatch.chdir(tmp_path)
    # Tested in tests/reports/page; they would take a second of every run.
    monkeypatch.setattr("es2_lightning.reports.page.run_page.drawn", lambda drawings: [])

    def run(*words: str, status: int = 0) -> None:
        run_command(main, *words, monkeypatch=monkeypatch, status=status)

    return run


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the Hub's layout, with a chat template."""
    folder = tmp_path_factory.mktemp("tiny_llama")
    chat_model = tiny_chat_model("llama")
    chat_model.model.save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on that model that changes its answers."""
    folder = tmp_path_factory.mktemp("tiny_adapter")
    model = add_lora(tiny_chat_model("llama").model, r=2)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(model, folder)
    return folder


@pytest.fixture(scope="session")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """harmful.jsonl and harmless.jsonl of words that the tiny models know."""
    folder = tmp_path_factory.mktemp("prompts")
    for kind, first in (("harmful", WORDS[:5]), ("harmless", WORDS[5:10])):
        rows = [{"prompt": f"{a} {b} {a}"} for a in first for b in WORDS[10:18]]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def on_files(tiny_llama: Path, prompt_files: Path) -> tuple[str, ...]:
    """The tiny model on those prompts, as a user would type it."""
    return (
        "model=hf",
        f"model.name_or_path={tiny_llama}",
        "model.dtype=float32",
        "data=prompts",
        f"data.source.harmful={prompt_files / 'harmful.jsonl'}",
        f"data.source.harmless={prompt_files / 'harmless.jsonl'}",
        *QUICK,
    )
