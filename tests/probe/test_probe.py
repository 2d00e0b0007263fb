"""The probe command on the organism: its files, a tuned model beside base, and its mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ..commands import run_command

SMALL = (
    "+data.source.train_harmful=40",
    "+data.source.train_harmless=80",
    "+data.source.test_per_kind=20",
    "+data.source.validation_per_kind=5",
)
Probe = Callable[..., Path]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Probe:
    """Runs the command with these words in an empty folder; gives the run's folder."""
    from es2_lightning.probe import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> Path:
        run_command(main, *words, monkeypatch=monkeypatch, status=status)
        if status:
            return tmp_path
        return max(tmp_path.glob("outputs/*/"), key=lambda path: path.stat().st_mtime)

    return run


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A folder that looks like a training run's, with an adapter that changes much."""
    from es2_lightning.backbone.adapters import add_lora, save_adapter
    from es2_lightning.backbone.chat_model import ChatModel
    from es2_lightning.config.location import package_path

    checkpoint = package_path("organism/checkpoint")
    model = add_lora(ChatModel.load(checkpoint).model)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path / "runs" / "one"
    save_adapter(model, folder / "adapter")
    (folder / "config.yaml").write_text(
        f"model: {{name_or_path: {checkpoint}}}\n"
        "data: {source: {_target_: es2_lightning.organism.prompts.OrganismPrompts, "
        "train_harmful: 30, train_harmless: 60, test_per_kind: 12, validation_per_kind: 5}}\n"
        "seed: 3\n"
    )
    return folder


def test_it_shows_and_keeps_what_it_finds(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    folder = probe(*SMALL)
    shown = capsys.readouterr().out
    assert "Emergence layer: 3" in shown and "bag of words" in shown
    table = shown[shown.index("Harmful or harmless") : shown.index("The run's folder")]
    assert max(map(len, table.splitlines())) <= 80
    found = json.loads((folder / "probe.json").read_text())
    assert found["emergence"] == {"base": 3} and found["scored_on"] == 20
    (model,) = found["models"]
    accuracies = [layer["accuracy"]["value"] for layer in model["layers"]]
    assert len(accuracies) == 6 and accuracies[0] < 0.8 < accuracies[-1]
    rows = list(csv.DictReader((folder / "probe.csv").open()))
    assert {r["metric"] for r in rows} > {"probe_accuracy", "between", "relative_between"}
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)
    assert (folder / "pictures" / "probe.png").stat().st_size > 10_000


def test_a_run_is_probed_beside_its_base_on_its_own_prompts(
    probe: Probe, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((probe(f"run={tuned}") / "probe.json").read_text())
    assert (found["fitted_on"], found["scored_on"]) == (30, 12)
    base, changed = found["models"]
    assert (base["name"], changed["name"]) == ("base", "tuned")
    assert base["layers"] != changed["layers"]
    alone = json.loads((probe(f"adapter={tuned / 'adapter'}", *SMALL) / "probe.json").read_text())
    plain = json.loads((probe(*SMALL) / "probe.json").read_text())
    assert alone["models"][0] == plain["models"][0], "the base is the model without its adapter"
    assert alone["models"][1] != plain["models"][0]
    assert "changes nothing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layers=all"], "takes no choice of layers. Groups: data, experiment, model."),
        (["loss=paper"], "takes no choice of loss"),
        (["loss.kl_weight=3"], "loss is not a key"),
        (["treshold=0.8"], "Did you mean threshold?"),
        (["max_prompts=2"], "max_prompts=2 is not accepted"),
        (["adapter=nowhere"], "adapter=nowhere: no such folder"),
        (["run=nowhere"], "run=nowhere: no such folder"),
        (["run=a", "adapter=b"], "Accepted: one of the two"),
        (["device=abacus"], "device=abacus"),
        (["+data.source.train_harmful=3"], "3 harmful, "),
        (["model.name_or_path=./nowhere"], "no such folder"),
        (["model=nosuch"], "model=hf model.name_or_path=nosuch"),
    ],
)
def test_a_mistake_is_a_sentence(
    probe: Probe, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    probe(*words, status=2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "outputs").exists()


def test_an_adapter_that_does_not_fit_is_a_sentence(
    probe: Probe, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ..tiny_models import tiny_chat_model

    other = tiny_chat_model()
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    probe(
        f"adapter={tuned / 'adapter'}",
        "model=hf",
        f"model.name_or_path={tmp_path / 'other'}",
        "model.dtype=float32",
        "data=organism",
        status=1,
    )
    error = capsys.readouterr().err
    assert "does not fit the base model" in error and "Traceback" not in error
