"""Every mistake on a command line gives one message: the key, the value, what is accepted."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from es2_lightning.config.precheck import Precheck
from es2_lightning.errors import UserError

LOSS_KEYS = "Keys of loss: kl_weight, threshold, unit"
MISTAKES = [
    ("loss.kl_wieght=1", "loss.kl_wieght is not a key. Did you mean loss.kl_weight?", LOSS_KEYS),
    ("+loss.kl_wieght=1", "loss.kl_wieght is not a key. Did you mean loss.kl_weight?", LOSS_KEYS),
    ("++loss.kl_wieght=1", "loss.kl_wieght is not a key. Did you mean loss.kl_weight?", LOSS_KEYS),
    ("+loss={kl_wieght: 1}", "loss.kl_wieght is not a key. Did you mean loss.kl_weight?"),
    ("loss={kl_wieght: 1}", "loss.kl_wieght is not a key. Did you mean loss.kl_weight?"),
    ("kl_weight=1", "kl_weight is not a key. Did you mean loss.kl_weight?", "experiment, layers"),
    ("+anything=1", "anything is not a key", "Keys: ckpt_path, data, experiment"),
    ("~nothing", "nothing is not a key"),
    ("~loss.kl_weight", "loss.kl_weight cannot be left out", "loss.kl_weight=<value>"),
    ("loss.kl_weight.low=1", "loss.kl_weight is a value"),
    ("loss.kl_weight=abc", "loss.kl_weight=abc is not accepted. Accepted: a number ≥ 0."),
    ("loss.kl_weight=-1", "loss.kl_weight=-1 is not accepted. Accepted: a number ≥ 0."),
    ("loss.kl_weight=nan", "loss.kl_weight=nan is not accepted"),
    ("loss.kl_weight=null", "loss.kl_weight=null is not accepted"),
    ("loss.kl_weight=", "loss.kl_weight= is not accepted"),
    ("loss.unit=inches", "loss.unit=inches is not accepted. Accepted: base_norm | raw."),
    ("loss.threshold=low", "loss.threshold=low is not accepted. Accepted: a number > 0."),
    ("seed=1.5", "seed=1.5 is not accepted. Accepted: a whole number."),
    ("layers.indices=3", "layers.indices=3 is not accepted. Accepted: a list, each a whole number"),
    ("layers.indices=[a]", "layers.indices[0]=a is not accepted", "each a whole number"),
    ("layers.emergence=x", "layers.emergence=x is not accepted. Accepted: a whole number, or null"),
    ("seed=1,2", "seed=1,2 holds several values", "with -m, a sweep"),
    ("data.path=x", "data.path is not a key. Keys of data: _target_", "+data.path=x"),
    ("model=mistrl", "model has no choice mistrl. Did you mean mistral?", "hf, mistral, organism"),
    ("model=/a/folder", "model=hf model.name_or_path=/a/folder"),
    ("model=org/name", "model=hf model.name_or_path=org/name"),
    ("layers=[10,32]", "layers=list layers.indices=[10,32]"),
    ("layers=10", "layers=list layers.indices=[10]"),
    ("model=", "model has no choice without a name"),
    ("model=hf", "model.name_or_path has no value", "model.name_or_path=<value>"),
    ("modxel=hf", "modxel is not a key. Did you mean model?"),
    ("+model=hf", "model has a choice already", "model=hf"),
    ("experiment=null", "~experiment"),
    ("hydra/launcher=nowhere", "hydra/launcher has no choice nowhere", "es2-lightning[sweeps]"),
    ("optimiser/x=1", "there is no config group optimiser/x"),
    ("hydra.run.dri=x", "hydra.run.dri is not a key. Did you mean hydra.run.dir?"),
    ("loss.kl_weight", "'loss.kl_weight' is not an override. Accepted: key=value"),
    ("loss.kl_weight=(1", "'loss.kl_weight=(1' cannot be read", "stands in quotes"),
    ("note=${nowhere}", "note cannot be resolved: Interpolation key 'nowhere' not found"),
    ("note=${oc.env:NOT_SET}", "note cannot be resolved: Environment variable 'NOT_SET' not found"),
    ("+logger.api_key=abc", "logger.api_key looks like a secret", "${oc.env:NAME}"),
    ("experiment=unknown_key", "In experiment/unknown_key.yaml: loss.kl_wieght is not a key"),
    ("experiment=wrong_type", "In experiment/wrong_type.yaml: loss.kl_weight=abc is not accepted"),
    ("experiment=no_choice", "Could not find 'data/unreal'", "organism other real"),
    ("experiment=no_yaml", "no_yaml.yaml"),
    ("ckpt_path=last", "there is no run to resume. Looked for", "hydra.run.dir="),
    ("--config-dir=nowhere", "--config-dir nowhere: there is no such folder"),
    ("--config-name=nowhere", "Cannot find primary config 'nowhere'"),
]


@pytest.mark.parametrize("word, told", [(word, told) for word, *told in MISTAKES])
def test_one_message_names_key_value_and_what_is_accepted(
    word: str, told: list[str], precheck: Callable[..., list[Any]]
) -> None:
    with pytest.raises(UserError) as raised:
        precheck(word)
    message = str(raised.value)
    for part in told:
        assert part in message
    assert "To append to your config" not in message
    assert "full_key" not in message


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["+data.limit=3"],  # Free-form: what the `_target_` takes is not ours to know.
        ["++data.anything.goes=3"],
        ["data=real", "data.limit=3"],
        ["loss={kl_weight: 2}"],
        ["+logger.api_key=${oc.env:HOME}"],
        ["+logger.eos_token=x"],
        ["layers=list", "layers.indices=[10,32]"],
        ["model=hf", "model.name_or_path=/a/folder"],
        ["hydra.run.dir=elsewhere", "hydra.job.chdir=false"],
        ["note=${hydra:runtime.output_dir}"],
        ["note=${hydra:job.num}"],
        ["layers.emergence=null"],
        ["~experiment"],
    ],
)
def test_right_words_pass(words: list[str], precheck: Callable[..., list[Any]]) -> None:
    assert len(precheck(*words)) == 1


def test_check_of_the_whole_config_runs(precheck: Callable[..., list[Any]]) -> None:
    with pytest.raises(UserError, match="not accepted with loss"):
        precheck("loss.unit=raw", "loss.kl_weight=0")


def test_free_form_nodes_arrive_as_plain_containers(precheck: Callable[..., list[Any]]) -> None:
    (config,) = precheck("data=real")
    assert config.data == {"_target_": "toy.Real", "path": "prompts.csv", "limit": 10}
    assert type(config.data) is dict


def test_each_job_of_a_sweep_is_checked(precheck: Callable[..., list[Any]]) -> None:
    with pytest.raises(UserError, match=r"Job 2 of the sweep: loss\.kl_weight=-3"):
        precheck("-m", "loss.kl_weight=1,2,-3")
    jobs = precheck("-m", "loss.kl_weight=1,2", "data=real,other")
    assert [(job.loss.kl_weight, job.data["_target_"]) for job in jobs] == [
        (1, "toy.Real"),
        (1, "toy.Other"),
        (2, "toy.Real"),
        (2, "toy.Other"),
    ]


def test_a_sweep_may_set_a_key_that_only_the_swept_choices_have(
    precheck: Callable[..., list[Any]],
) -> None:
    (job,) = precheck("-m", "data=glob(re*)", "data.path=x")
    assert job.data["path"] == "x"
    assert len(precheck("hydra.mode=MULTIRUN", "seed=range(3)")) == 3


@pytest.mark.parametrize(
    "words",
    [
        ["layers=all,10"],
        ["loss.kl_wieght=1,2"],
        ["seed=interval(1,2)"],
        ["hydra.foo=1", "seed=1,2"],
        ["hydra.run.dir=a,b"],
    ],
)
def test_mistakes_in_a_sweep(words: list[str], precheck: Callable[..., list[Any]]) -> None:
    with pytest.raises(UserError):
        precheck("-m", *words)


def test_a_config_without_the_schema_is_refused(
    precheck: Callable[..., list[Any]], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 1\nhydra: {run: {dir: x}}\n")
    with pytest.raises(UserError, match=r"begins with toy_schema"):
        precheck(f"--config-dir={tmp_path}", "--config-name=mine")


def test_users_own_folder_adds_choices(precheck: Callable[..., list[Any]], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("_target_: mine.Source\n")
    (config,) = precheck(f"--config-dir={tmp_path}", "data=mine")
    assert config.data["_target_"] == "mine.Source"
    (config,) = precheck(f"hydra.searchpath=[file://{tmp_path}]", "data=mine")
    assert config.data["_target_"] == "mine.Source"


def test_untyped_commands_work_too(toy_conf: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("a: {b: 1}\nhydra: {run: {dir: x}}\n")
    seen: list[Any] = []

    def words(*given: str) -> argparse.Namespace:
        from hydra._internal.utils import get_args_parser

        return get_args_parser().parse_args(given)

    check = Precheck(tmp_path, "plain", check=seen.append)
    check(words("a.b=2"))
    assert seen[0].a.b == 2
    with pytest.raises(UserError, match=r"Did you mean a\.b"):
        check(words("a.bb=2"))
