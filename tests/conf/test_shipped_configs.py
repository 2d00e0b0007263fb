"""Every shipped choice composes, says what it is for, and starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import es2_lightning.benchmark
import es2_lightning.rank
import es2_lightning.train  # noqa: F401  (registers the schema and the resolvers)
from es2_lightning.config.benchmark_schema import BenchmarkConfig
from es2_lightning.config.location import conf_dir
from es2_lightning.config.rank_schema import RankConfig
from es2_lightning.config.train_schema import TrainConfig

from ..tiny_models import WORDS, tiny_chat_model
from ..train.conftest import SMALL, TINY_EVALUATION, Train, train  # noqa: F401

SEVERAL = ("attack", "judge", "logger")
"""Groups of which a config holds a list of choices."""
ALL = sorted((path.parent.name, path.stem) for path in conf_dir().glob("*/*.yaml"))
CHOICES = [f"{g}=[{name}]" if g in SEVERAL else f"{g}={name}" for g, name in ALL]
# What a choice needs beside itself to run on the organism, on a CPU, in seconds.
NEEDS = {
    "evaluate=small": list(TINY_EVALUATION),
    "layers=list": ["layers.indices=[3,6]"],
    "evaluate=default": list(TINY_EVALUATION),
    "evaluate=organism": list(TINY_EVALUATION),
    # Otherwise it asks for torchrun or srun, which start it on each machine.
    "trainer=multinode": ["trainer.num_nodes=1", "trainer.devices=2"],
}
REAL = [choice for choice in CHOICES if choice.startswith("model=") and choice != "model=organism"]
OTHER_PROMPTS = tuple(
    f"data={name}" for group, name in ALL if group == "data" and name != "organism"
)
# Attacks and judges of every kind are started by tests/evaluate, sweeps and loggers by tests/train,
# rankers by tests/rank.
ELSEWHERE = ("attack=", "judge=", "capability=", "benchmark=", "sweep=", "logger=", "rank")
COMMANDS = {"benchmark": "benchmark", "ranker": "rank", "ranking": "rank"}
"""Which command has a group that `train` does not have."""
TOGETHER = (
    "loss=default optimizer=default schedule=default step=plain layers=every_nth logger=[csv]",
    "loss=paper optimizer=paper schedule=paper layers=all trainer=gpu",
    "method=stl layers=single",
    "method=circuit_breakers layers=depths",
)
"""Choices that `make test` starts; the slow tests start each one by itself."""


@pytest.mark.parametrize("choice", CHOICES)
def test_it_composes(choice: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        command = COMMANDS.get(choice.partition("=")[0], "train")
        config = compose(command, overrides=[choice], return_hydra_config=False)
    group, name = choice.replace("[", "").replace("]", "").split("=")
    schemas = (TrainConfig, BenchmarkConfig, RankConfig)
    assert group in ("experiment", "sweep") or any(group in s.__dataclass_fields__ for s in schemas)
    assert OmegaConf.to_container(config)
    assert isinstance(yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text()), dict)


def starts(choice: str) -> bool:
    return choice not in (*REAL, *OTHER_PROMPTS) and not choice.startswith(ELSEWHERE)


@pytest.mark.parametrize(
    "choices",
    [*TOGETHER, *(pytest.param(c, marks=pytest.mark.slow) for c in CHOICES if starts(c))],
)
def test_it_starts(train: Train, choices: str) -> None:  # noqa: F811
    words = choices.split()
    quick = [] if choices.startswith("evaluate=") else ["evaluate=none"]
    chosen = {word for word in words if word.startswith("layers=")}
    found = not chosen or chosen == {"layers=emergence_terminal"}
    many = ["layers.emergence=3"] if found else []
    needs = [need for word in words for need in NEEDS.get(word, [])]
    folder = train(*SMALL, *many, *words, *quick, *needs)
    assert (folder / "adapter" / "adapter_model.safetensors").exists()


@pytest.fixture(scope="module")
def tiny_mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the Hub's layout."""
    folder = tmp_path_factory.mktemp("tiny_mistral")
    chat_model = tiny_chat_model("mistral")
    chat_model.model.save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both data sets' folders, with the columns that theirs have on the Hub."""
    folder = tmp_path_factory.mktemp("data_sets")
    rows = {
        "AdvBench": [{"prompt": f"w0 w1 {word}", "target": "Sure"} for word in WORDS],
        "alpaca": [
            {
                "instruction": f"w2 {word}",
                "input": "w3" if i % 2 else "",
                "output": "w4",
                "text": "",
            }
            for i, word in enumerate(WORDS)
        ],
    }
    for name, of_name in rows.items():
        (folder / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in of_name)
        (folder / name / "train.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "preset", [pytest.param("model=hf", marks=pytest.mark.slow), "model=mistral"]
)
def test_a_real_preset_runs_on_a_local_copy(
    train: Train,  # noqa: F811
    preset: str,
    tiny_mistral: Path,
    data_sets: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = train(
        preset,
        "loss.kl_weight=0.5",
        f"model.name_or_path={tiny_mistral}",
        f"data.source.harmful.path={data_sets / 'AdvBench'}",
        f"data.source.harmless.path={data_sets / 'alpaca'}",
        "layers=list",
        "layers.indices=[2,4]",
        "schedule.max_steps=1",
        "trainer.accelerator=cpu",
        *TINY_EVALUATION,
        "evaluate.max_new_tokens=4",
    )
    shown = capsys.readouterr().out
    for selected in ("data=advbench_alpaca", "judge=[keyword]", "loss=default", "trainer=gpu"):
        assert selected in shown
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["loss"]["kl_weight"] == 0.5
    assert (folder / "adapter" / "adapter_config.json").exists() and (folder / "table.txt").exists()


def test_an_override_wins_over_what_a_preset_selects() -> None:
    def composed(*words: str) -> TrainConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", overrides=list(words))  # type: ignore[return-value]

    assert composed("model=mistral").loss.distance_unit == "base_norm"
    assert composed("model=mistral", "loss=paper").loss.distance_unit == "raw"
    assert composed("model=mistral", "experiment=paper").optimizer["lr"] == 1e-6
    assert "organism" in composed("model=mistral", "data=organism").data.source["_target_"]


def test_the_papers_values() -> None:
    """Table 5 of arXiv 2603.20206."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=["experiment=paper", "model=mistral"])
    assert config.optimizer._target_ == "torch.optim.AdamW"
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-6, 0.01)
    lora = config.model.lora
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (8, 16, 0.05)
    assert (config.data.harmless_per_batch, config.data.harmful_per_batch) == (50, 10)
    assert config.trainer.accumulate_grad_batches == 4
    assert config.schedule.max_epochs * 2 == 50 and config.schedule.order == "sequential"
    assert config.loss.harmful_kl_weight == 0 and config.loss.separation_weight == 1
