"""The toy command's config folder, and two ways to give it words: in this process, and as a user.

The order of the defaults list is the one that the commands use. A model preset stands after the
groups whose choices it overrides, and `experiment`, which overrides all, at the end: Hydra reads
the list from its end and the first override of a choice that it meets wins.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser

from es2_lightning.config.precheck import Precheck
from es2_lightning.config.run_folder import register_resolvers

TOY_APP = Path(__file__).parent / "toy_app.py"
CONF = {
    "toy": """
        defaults:
          - toy_schema
          - data: organism
          - layers: all
          - loss: es2
          - optimizer: adamw
          - model: organism
          - _self_
          - experiment: null
        seed: 1
        hydra:
          run: {dir: "${run_folder:${ckpt_path}}"}
          sweep: {dir: "${sweep_folder:}", subdir: "${hydra.job.num}"}
    """,
    "model/organism": """
        # @package _global_
        defaults:
          - override /data: organism
        model: {name_or_path: organism}
    """,
    "model/mistral": """
        # @package _global_
        defaults:
          - override /data: real
          - override /loss: mistral
          - override /optimizer: sgd
        model: {name_or_path: mistralai/Mistral}
    """,
    "model/hf": "name_or_path: ???",
    "data/organism": "_target_: toy.Organism",
    "data/real": "{_target_: toy.Real, path: prompts.csv, limit: 10}",
    "data/other": "_target_: toy.Other",
    "layers/all": "select: all",
    "layers/list": "{select: list, indices: '???'}",
    "loss/es2": "kl_weight: 1.0",
    "loss/mistral": "kl_weight: 0.5",
    "loss/paper": "{kl_weight: 2.0, unit: raw}",
    "optimizer/adamw": "lr: 1.0",
    "optimizer/sgd": "lr: 2.0",
    "optimizer/lion": "lr: 3.0",
    "experiment/paper": """
        # @package _global_
        defaults:
          - override /model: mistral
          - override /data: other
        loss: {kl_weight: 9}
    """,
    "experiment/unknown_key": """
        # @package _global_
        loss: {kl_wieght: 9}
    """,
    "experiment/wrong_type": """
        # @package _global_
        loss: {kl_weight: abc}
    """,
    "experiment/no_yaml": "loss: [",
    "experiment/no_choice": """
        # @package _global_
        defaults:
          - override /data: unreal
    """,
}


def write_conf(folder: Path) -> Path:
    for name, text in CONF.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        file.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def toy_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conf(tmp_path_factory.mktemp("toy") / "conf")


@pytest.fixture(scope="module")
def toy(toy_conf: Path) -> Iterator[ModuleType]:
    """The toy command's module."""
    os.environ["TOY_CONF"] = str(toy_conf)
    spec = importlib.util.spec_from_file_location("toy_app", TOY_APP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_app"] = module
    spec.loader.exec_module(module)
    yield module
    del os.environ["TOY_CONF"]


@pytest.fixture
def precheck(
    toy: ModuleType, toy_conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Any]]:
    """Checks words in this process; gives the typed config of each job that would run."""
    monkeypatch.chdir(tmp_path)
    register_resolvers(reserve=False)

    def run(*words: str) -> list[Any]:
        jobs: list[Any] = []

        def check(config: Any) -> None:
            toy.check(config)
            jobs.append(config)

        arguments = get_args_parser().parse_args(words)
        Precheck(toy_conf, "toy", toy.Toy, check, toy.OWN_VALUES)(arguments)
        return jobs

    return run


@pytest.fixture
def toy_command(toy_conf: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the toy command as a user does, in an empty folder."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(TOY_APP), *words],
            cwd=tmp_path,
            env={**os.environ, "TOY_CONF": str(toy_conf), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
