"""The command from end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from es2_lightning.config.location import package_path

from ..offline_wandb import offline_runs
from .conftest import SMALL, TINY_EVALUATION, Train

BASE = package_path("organism/checkpoint")


def test_a_run_leaves_what_it_promises(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(*SMALL, *TINY_EVALUATION)
    shown = capsys.readouterr().out
    assert "Selected: model=organism" in shown and "layers=emergence_terminal" in shown
    assert "Base against tuned" in shown and f"The run's folder: {folder}" in shown
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml", "versions.json", "metrics.jsonl", "metrics.csv", "table.txt", "report.html",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
        "checkpoints/last.ckpt", "evaluation/results.json", "evaluation/results.csv",
        "evaluation/generations.jsonl", "pictures/budget_curve.png", "pictures/layers.png",
        "pictures/projection.png", "pictures/training.png",
    }  # fmt: skip
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for key in ("loss", "kl", "separation", "gradient_norm", "layer_3/distance_relative"):
        assert all(row[f"train/{key}"] for row in rows), key
    # Nothing above the separated layer is computed of harmful prompts.
    deeper = [bool(row["train/layer_6/distance_relative"]) for row in rows]
    assert deeper == [False] * 2 + [True] * 2
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["packages"]["torch"] == torch.__version__.split("+")[0] or (
        versions["packages"]["torch"] == torch.__version__
    )
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"] and all("lora_" in name for name in saved["state_dict"])


def test_plain_peft_loads_the_adapter(train: Train) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = train(*SMALL, "evaluate=none")
    assert not (folder / "evaluation").exists()
    base = AutoModelForCausalLM.from_pretrained(BASE)
    ids = torch.arange(10, 20)[None]
    before = base(input_ids=ids).logits.detach()
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    after = model(input_ids=ids).logits.detach()
    assert not torch.allclose(before, after)
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(
        torch.equal(tensor, saved[name.replace(".default", "")])
        for name, tensor in model.state_dict().items()
        if "lora_" in name
    )


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_never_stopped(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from es2_lightning.training.es2_module import ES2Module

    words = (
        *SMALL,
        "evaluate=none",
        "schedule.max_steps=4",
        "callbacks.checkpoint.every_n_train_steps=1",
    )
    to_wandb = ("logger=[wandb]", "logger.offline=true")
    never_stopped = train(*words)
    whole = load_file(never_stopped / "adapter" / "adapter_model.safetensors")
    step = ES2Module.training_step
    calls = []

    def interrupted(self: ES2Module, *args: object) -> object:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ES2Module, "training_step", interrupted)
    stopped = train(*words, *to_wandb, "hydra.run.dir=outputs/stopped", status=130)
    monkeypatch.setattr(ES2Module, "training_step", step)
    assert not (stopped / "adapter").exists()
    resumed = train(*words, *to_wandb, "ckpt_path=last")
    assert resumed == stopped
    again = load_file(resumed / "adapter" / "adapter_model.safetensors")
    assert whole.keys() == again.keys()
    for name in whole:
        torch.testing.assert_close(again[name], whole[name], rtol=1e-6, atol=1e-9)
    with (resumed / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(8))
    assert (resumed / "samples.jsonl").read_text() == (never_stopped / "samples.jsonl").read_text()
    first, second = offline_runs(resumed)
    assert first.run.run_id == second.run.run_id, "to W&B it is the same run"
    assert (first.exit_code, second.exit_code) == (1, 0)


def test_a_run_without_an_applied_step_says_so(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SMALL, "evaluate=none", "layers=single")
    train(*words)
    assert "the base model's" not in capsys.readouterr().out
    # Nothing is separated and nothing is kept: no gradient moves the adapter.
    train(*words, "optimizer.lr=0")
    assert "The tuned model's logits are the base model's" in capsys.readouterr().out


def test_resuming_with_other_layers_is_refused(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SMALL, "evaluate=none")
    folder = train(*words, "layers=single")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    train(*words, "layers=list", "layers.indices=[3,6]", f"ckpt_path={checkpoint}", status=1)
    assert "layers" in capsys.readouterr().err
    train(*words, "ckpt_path=nowhere.ckpt", status=2)
    assert "ckpt_path=nowhere.ckpt: no such file" in capsys.readouterr().err


def test_a_sweep_gives_each_job_a_folder_and_goes_on_after_a_failure(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SMALL, "evaluate=none", "layers=single")
    train("-m", *words, "loss.kl_weight=0.1,1")
    sweep = next(tmp_path.glob("outputs/sweeps/*"))
    adapters = [
        load_file(sweep / job / "adapter" / "adapter_model.safetensors") for job in ("0", "1")
    ]
    assert any(not torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
