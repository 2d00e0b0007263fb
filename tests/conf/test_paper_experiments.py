"""experiment=paper/<table>: each composes for the paper's models and the organism, and starts."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict, read_write

import es2_lightning.probe
import es2_lightning.train  # noqa: F401  (both register schemas and resolvers)
from es2_lightning.config.checking import check_config, to_object
from es2_lightning.config.location import conf_dir

from ..train.conftest import SMALL, Train, train  # noqa: F401

TABLES = sorted(
    path.stem
    for path in (conf_dir() / "experiment" / "paper").glob("*.yaml")
    if not path.stem.startswith("_")
)
OF_TRAINING = [table for table in TABLES if table != "probe_accuracy"]
QUICK, OTHERS = ("llama2", "organism"), ("llama3", "mistral", "qwen2_5")
MODELS = [*QUICK, *(pytest.param(model, marks=pytest.mark.slow) for model in OTHERS)]


def composed(*words: str, command: str = "train") -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, overrides=list(words), return_hydra_config=True)


def jobs(config: Any) -> list[str]:
    """The words of each job of the table's sweep, which goes over one key."""
    ((key, values),) = config.hydra.sweeper.params.items()
    (override,) = OverridesParser.create().parse_overrides([f"{key}={values}"])
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def typed(config: Any) -> Any:
    """What a job's function would receive."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = "outputs/a_run"
    HydraConfig.instance().set_config(config)
    plain = config.copy()
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    check_config(plain)
    return to_object(plain)


def test_every_table_has_its_command() -> None:
    assert set(TABLES) == {
        *("main", "prompt_level", "integrity", "capability", "perturbation"),
        *("one_layer", "two_layers", "three_layers", "probe_accuracy"),
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("table", OF_TRAINING)
def test_it_composes_for_every_model(table: str, model: str) -> None:
    config = composed(f"experiment=paper/{table}", f"model={model}")
    words = jobs(config)
    assert len(words) >= 2
    if table.endswith("layers") or table == "one_layer":
        config = composed(f"experiment=paper/{table}", f"model={model}", words[-1])
    job = typed(config)
    assert "keyword_paper" in job.judge
    if model == "organism":
        assert "exact" in job.judge and job.optimizer["lr"] == 5e-4
        assert job.loss.distance_unit == "base_norm" and job.trainer["accelerator"] == "cpu"
    else:
        assert job.optimizer["lr"] == 1e-6 and job.optimizer["weight_decay"] == 0.01
        assert job.loss.distance_unit == "raw" and job.loss.harmful_kl_weight == 0
        assert job.trainer["accumulate_grad_batches"] == 4
        stages = {"one_layer": 1, "three_layers": 3}.get(table, 2)
        assert round(stages * job.schedule.max_epochs, -1) == 50 and job.schedule.max_steps is None
    if table == "capability":
        harness = "LmEval" if model != "organism" else "ExactAnswers"
        assert job.capability["_target_"].endswith(harness)


def test_other_methods_keep_their_own_values() -> None:
    stl = typed(composed("experiment=paper/main", "model=llama3", "method=stl"))
    assert stl.optimizer["lr"] == 1e-4 and stl.schedule.max_epochs == 4
    breakers = typed(composed("experiment=paper/main", "model=llama3", "method=circuit_breakers"))
    assert breakers.schedule.max_steps == 150 and breakers.method["alpha"] == 5
    assert breakers.layers.select == "depths" and breakers.model.lora.r == 16


@pytest.mark.parametrize("model", MODELS)
def test_the_probes_command_composes(model: str) -> None:
    words = ("experiment=paper/probe_accuracy", f"model={model}")
    assert composed(*words, command="probe").scale_free is False


@pytest.mark.slow
@pytest.mark.parametrize("table", OF_TRAINING)
def test_the_organisms_version_starts(train: Train, table: str) -> None:  # noqa: F811
    word = jobs(composed(f"experiment=paper/{table}"))[-1]
    run = ("hydra.mode=RUN", "evaluate=none", "layers.emergence=3")
    folder = train(*SMALL, f"experiment=paper/{table}", word, *run)
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
