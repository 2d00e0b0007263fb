"""Which model an export is of, and where it goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from es2_lightning.backbone.adapter_folder import CONFIG, check_adapter_folder
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.config.earlier_run import EarlierRun
from es2_lightning.config.evaluated_run import take_over
from es2_lightning.config.export_schema import ExportConfig
from es2_lightning.errors import UserError

FOLDER = "export"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ExportedModel:
    """What is exported.

    Attributes:
        model: The base model, as it is loaded for merging and comparing: never in 4 bits.
        adapter: The adapter's folder; None where all weights were tuned.
        full_model: The folder of the tuned weights; None where an adapter was tuned.
        run: The training run that made it, where it is known.
        to: The folder that is written.
    """

    model: ModelSettings
    adapter: Path | None
    full_model: Path | None
    run: EarlierRun | None
    to: Path


def find_exported(config: ExportConfig, words: Sequence[str]) -> ExportedModel:
    """What the config names, looked up without loading weights.

    Args:
        config: The whole config.
        words: The overrides on the command line.

    Raises:
        UserError: Neither a run nor an adapter is named, or both; the folder is no run's or holds
            no adapter.
    """
    if (config.run is None) == (config.adapter is None):
        said = "neither run nor adapter is set" if config.run is None else "run and adapter are set"
        raise UserError(
            f"{said}. Accepted is one of them: run=outputs/<run>, or adapter=<a folder in peft's "
            "format>."
        )
    to = Path(config.to).expanduser() if config.to is not None else None
    if config.run is not None:
        config, run = take_over(config, words)
        if run.adapter is not None:
            check_adapter_folder(run.adapter)
        return ExportedModel(
            model=_whole(config.model),
            adapter=run.adapter,
            full_model=run.full_model,
            run=run,
            to=to or run.folder / FOLDER,
        )
    adapter = Path(str(config.adapter)).expanduser()
    check_adapter_folder(adapter)
    model = config.model
    if not any(word.startswith(("model=", "model.name_or_path=")) for word in words):
        model = _named_by(adapter, model)
        if config.merge or config.verify:
            model = _in_its_own_dtype(model)
    to = to or adapter.absolute().parent / FOLDER
    return ExportedModel(model=_whole(model), adapter=adapter, full_model=None, run=None, to=to)


def _whole(model: ModelSettings) -> ModelSettings:
    # An adapter on 4-bit weights is merged into the weights that were made 4-bit ones.
    return replace(model, mode="lora") if model.mode == "qlora" else model


def _named_by(adapter: Path, model: ModelSettings) -> ModelSettings:
    try:
        found = json.loads((adapter / CONFIG).read_text("utf-8"))
        name, revision = found["base_model_name_or_path"], found.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"adapter={adapter}: its {CONFIG} cannot be read: {error}") from error
    if not name:
        raise UserError(
            f"adapter={adapter}: its {CONFIG} names no base model. Accepted: model.name_or_path="
            "<the base model's Hub id or folder>"
        )
    return replace(model, name_or_path=name, revision=revision)


def _in_its_own_dtype(model: ModelSettings) -> ModelSettings:
    from es2_lightning.backbone.chat_model import load_config

    config = load_config(
        model.name_or_path, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    dtype = str(config.get_text_config().dtype).removeprefix("torch.")
    return replace(model, dtype=dtype) if dtype in DTYPES else model
