"""Runs of other models than the organism, named as users name them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from .conftest import Evaluate


@pytest.fixture
def run_folder(tmp_path: Path, tiny_llama: Path, tiny_adapter: Path, prompt_files: Path) -> Path:
    """As `train model=hf …` leaves it, in a folder that has to be quoted."""
    folder = tmp_path / "my runs, all" / "first"
    (folder / ".hydra").mkdir(parents=True)
    shutil.copytree(tiny_adapter, folder / "adapter")
    source = {
        "_target_": "es2_lightning.prompts.sources.MixedPrompts",
        "harmful": str(prompt_files / "harmful.jsonl"),
        "harmless": str(prompt_files / "harmless.jsonl"),
    }
    config = {
        "model": {"name_or_path": str(tiny_llama), "dtype": "float32"},
        "data": {"source": source},
        "seed": 3,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    choices = {"hydra": {"runtime": {"choices": {"model": "hf", "data": "files"}}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(choices))
    return folder


FEW = (
    "attack=[direct]",
    "evaluate.harmful_prompts=2",
    "evaluate.validation_prompts=2",
    "evaluate.other_prompts=2",
    "evaluate.max_new_tokens=3",
    "device=cpu",
)


def test_a_run_brings_its_model_and_what_fits_it(
    evaluate: Evaluate, run_folder: Path, tiny_llama: Path
) -> None:
    evaluate(f"run='{run_folder}/'", *FEW)
    folder = run_folder / "evaluation"
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"]["name_or_path"] == str(tiny_llama)
    assert saved["model"]["dtype"] == "float32", "the run's, not the preset's"
    assert saved["data"]["source"]["harmful"].endswith("harmful.jsonl") and saved["seed"] == 3
    assert list(saved["judge"]) == ["keyword"] and saved["capability"] == {}
    results = json.loads((folder / "results.json").read_text())
    assert list(results["measurements"]) == ["base", "tuned"]


@pytest.mark.slow
def test_a_sweep_over_runs_takes_each_ones_model(
    evaluate: Evaluate, run_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    shutil.copytree(run_folder, tmp_path / "plain")
    evaluate("-m", "run=other,plain/", *FEW)
    found = list((tmp_path / "outputs" / "sweeps").glob("*/*/results.json"))
    assert len(found) == 2
    (other / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: mistral}}}")
    evaluate("-m", "run=other,plain", *FEW, status=2)


@pytest.mark.slow
def test_another_full_model_than_the_bases_is_told(
    evaluate: Evaluate, run_folder: Path, tiny_llama: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(run_folder / "adapter")
    shutil.copytree(tiny_llama, run_folder / "model")
    evaluate(f"run='{run_folder}'", "model=organism", "data=organism", *FEW, status=1)
    assert "so it was not tuned from that" in capsys.readouterr().err
