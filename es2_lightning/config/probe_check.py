"""What types and ranges cannot say of a probing config; asked before any weights load."""

from __future__ import annotations

from pathlib import Path

from es2_lightning.backbone.adapter_folder import check_adapter_folder
from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings_check import check_values
from es2_lightning.config import job
from es2_lightning.config.evaluated_run import take_over
from es2_lightning.config.loaded_prompts import read_prompts
from es2_lightning.config.probe_schema import ProbeConfig
from es2_lightning.errors import UserError


def check_probe(config: ProbeConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A run, an adapter or a model that is not there, a run and an adapter at once,
            prompts that cannot be read.
    """
    if config.run is not None and config.adapter is not None:
        raise UserError(
            f"run={config.run} and adapter={config.adapter}: a run brings its own adapter. "
            "Accepted: one of the two."
        )
    adapter = None if config.adapter is None else Path(config.adapter)
    if config.run is not None:
        config, run = take_over(config, job.overrides())
        adapter = run.adapter
    if adapter is not None:
        check_adapter_folder(adapter)
    check_values(config.model)
    refuse_missing_folder(config.model.name_or_path)
    read_prompts(config.data.source)


def check_built(config: ProbeConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A device that is not there, a model that cannot be loaded as was set, too few
            prompts of a class.
    """
    if config.run is not None:
        config, _ = take_over(config, job.overrides())
    from es2_lightning.backbone.devices import choose_device

    choose_device(config.device)
    from es2_lightning.backbone.loading import read_depth
    from es2_lightning.evaluation.layer_probes import ContrastSplit

    read_depth(config.model)
    splits = read_prompts(config.data.source)
    ContrastSplit.draw(splits, max_prompts=config.max_prompts, seed=config.seed)
