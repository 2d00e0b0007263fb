"""What a command takes over from `run=…`, unless the command line says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra.core.override_parser.types import Override, Transformer
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from es2_lightning.backbone.adapter_folder import check_adapter_folder
from es2_lightning.config import job
from es2_lightning.config.earlier_run import EarlierRun, read_run
from es2_lightning.config.evaluate_schema import EvaluateConfig
from es2_lightning.config.export_schema import ExportConfig
from es2_lightning.config.overrides import parse
from es2_lightning.config.probe_schema import ProbeConfig
from es2_lightning.config.rank_schema import RankConfig
from es2_lightning.errors import UserError

Config = TypeVar("Config", EvaluateConfig, ProbeConfig, ExportConfig, RankConfig)
Measured = TypeVar("Measured", EvaluateConfig, ProbeConfig, RankConfig)
NAME = "model.name_or_path"
CHOICES = Path(".hydra") / "hydra.yaml"


def with_preset(words: list[str]) -> list[str]:
    """The command line, with the run's model and its preset where it names a run and no model.

    The preset selects the judge, the sizes and the attacks' values that fit the model. The name of
    the run's model is written as an interpolation, since a sweep may go over several runs.

    Raises:
        UserError: A sweep over runs of different presets.
    """
    overrides = _parsed(words)
    chosen = [str(o.value()) for o in overrides if o.key_or_group == "model"]
    named = [run for o in overrides if o.key_or_group == "run" for run in _values(o)]
    # What is wrong with a folder is told when it is read.
    presets = {run: str(preset) for run in named if (preset := choices_of(run).get("model"))}
    if len(set(presets.values())) > 1 and not chosen:
        shown = ", ".join(f"{run}: model={preset}" for run, preset in presets.items())
        raise UserError(
            f"the runs of this sweep had different presets ({shown}), of which each has judges and "
            "sizes of its own. Accepted: a command for the runs of each preset."
        )
    if not presets or (chosen and chosen != [*presets.values()][:1]):
        return words
    implied = [] if chosen else [f"model={preset}" for preset in set(presets.values())]
    if not any(override.key_or_group == NAME for override in overrides):
        implied.append(f"{NAME}='${{run_model:${{run}}}}'")
    return [*words, *implied]


def _parsed(words: Sequence[str]) -> list[Override]:
    """The words that can be read; of the others the command itself tells what is wrong."""
    found: list[Override] = []
    for word in words:
        with suppress(UserError):
            found += parse([word]) if "=" in word and not word.startswith("-") else []
    return found


def _values(override: Override) -> list[str]:
    """What an override sets, without its quotes; of a sweep, one after the other."""
    if override.is_discrete_sweep():
        return [str(value) for value in override.sweep_iterator(Transformer.identity)]
    return [str(override.value())]


def check_model_given(config: Measured) -> Measured:
    """The config with what its run brings, if it names one and the adapter is there.

    Raises:
        UserError: `run` and `adapter` at once, or a run or an adapter that is not there.
    """
    if config.run is not None and config.adapter is not None:
        raise UserError(
            "run and adapter are both set. Accepted: run=outputs/<run>, which brings its own "
            "adapter, or adapter=<folder> with model=…"
        )
    if config.run is not None:
        config, run = take_over(config, job.overrides())
        if run.adapter is not None:
            check_adapter_folder(run.adapter)
    if config.adapter is not None:
        check_adapter_folder(Path(config.adapter))
    return config


def take_over(config: Config, words: Sequence[str]) -> tuple[Config, EarlierRun]:
    """The config with the run's model, prompts and seed; what `words` set wins.

    Args:
        config: With `run` set.
        words: The overrides on the command line.

    Raises:
        UserError: The folder holds no finished run.
    """
    run = read_run(str(config.run))
    chosen_then = choices_of(str(config.run))
    composed = asdict(config)
    taken: dict[str, Any] = {}
    for group in ("model", "data"):
        if group not in composed:
            continue
        if any(
            w.startswith(f"{group}=") and w != f"{group}={chosen_then.get(group)}" for w in words
        ):
            continue  # Another choice than the run's, so chosen as a whole.
        node = OmegaConf.create(run.config[group])
        for word in words:
            key = word.lstrip("+").partition("=")[0]
            if key.startswith(f"{group}."):
                below = key.removeprefix(f"{group}.")
                OmegaConf.update(node, below, _at(composed, key), force_add=True)
        schema = OmegaConf.structured(type(getattr(config, group)))
        try:
            taken[group] = OmegaConf.to_object(OmegaConf.merge(schema, node))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"run={config.run}: its config.yaml, {group}: {reason}") from error
    if "seed" in composed and not any(word.startswith("seed=") for word in words):
        taken["seed"] = int(run.config.get("seed", composed["seed"]))
    return replace(config, **taken), run


def with_taken_over(composed: DictConfig, config: Measured, run: EarlierRun) -> DictConfig:
    """The composed config with what `take_over` put in its place, to be saved.

    What the run's own config reads from the environment stays as it is written there.
    """
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    for group in ("model", "data"):
        kept = run.config[group]
        plain[group] = kept if "${" in str(kept) else asdict(getattr(config, group))
    return OmegaConf.create(plain | {"seed": config.seed})


def choices_of(folder: str) -> dict[str, Any]:
    """Which choices of the config groups the run was started with; empty where that is lost."""
    try:
        saved = yaml.safe_load((Path(folder) / CHOICES).read_text("utf-8"))
        return dict(saved["hydra"]["runtime"]["choices"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}


def _at(composed: dict[str, Any], key: str) -> Any:
    value: Any = composed
    for name in key.split("."):
        value = value[name]
    return value
