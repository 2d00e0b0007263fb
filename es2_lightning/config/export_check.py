"""What types and ranges cannot say of an export's config; asked before any weights load."""

from __future__ import annotations

from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings_check import check_values
from es2_lightning.config import job
from es2_lightning.config.export_schema import ExportConfig
from es2_lightning.config.exported_model import find_exported
from es2_lightning.errors import UserError


def check_export(config: ExportConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A run, an adapter or a model that is not there; a folder that may not be
            written; a repository that cannot be pushed to; values that have no effect together.
    """
    from es2_lightning.backbone.export_folder import check_target
    from es2_lightning.backbone.hub_repository import check_id, check_push

    exported = find_exported(config, job.overrides())
    whole = config.merge or exported.full_model is not None
    if config.dtype is not None and not whole:
        raise UserError(
            f"dtype={config.dtype}: an adapter is exported as it was trained. Accepted: merge=true "
            "with it, or no dtype."
        )
    if config.private is not None and config.push_to_hub is None:
        raise UserError(
            f"private={config.private}: nothing is uploaded. Accepted: push_to_hub=<owner>/<name> "
            "with it."
        )
    if config.base_model is not None:
        check_id(config.base_model, key="base_model")
    if config.push_to_hub is not None:
        check_push(config.push_to_hub)
        _check_base_is_public(config, exported.model.name_or_path, whole=whole)
    check_target(exported.to, overwrite=config.overwrite)
    if whole or config.verify:
        check_values(exported.model)
        refuse_missing_folder(exported.model.name_or_path)


def check_built(config: ExportConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A device that is not there, a model that cannot be loaded as was set.
    """
    from es2_lightning.backbone.devices import choose_device

    choose_device(config.device)
    exported = find_exported(config, job.overrides())
    if config.merge or config.verify or exported.full_model is not None:
        from es2_lightning.backbone.loading import read_depth

        read_depth(exported.model)


def _check_base_is_public(config: ExportConfig, base: str, *, whole: bool) -> None:
    from es2_lightning.backbone.hub_repository import is_local

    if whole or config.base_model is not None or not is_local(base):
        return
    raise UserError(
        f"push_to_hub={config.push_to_hub}: the adapter's base model is a folder of this machine, "
        f"{base}, so nobody else could load it. Accepted: base_model=<its Hub id>, or merge=true, "
        "which uploads whole weights."
    )
