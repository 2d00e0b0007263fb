"""What types and ranges cannot say of an evaluation's config; asked before any weights load."""

from __future__ import annotations

from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings_check import check_values
from es2_lightning.config import job
from es2_lightning.config.evaluate_schema import EvaluateConfig
from es2_lightning.config.evaluated_run import check_model_given, take_over
from es2_lightning.config.evaluation_objects import build_attacks, build_capability, build_judges
from es2_lightning.config.loaded_prompts import read_prompts
from es2_lightning.config.logger_check import check_loggers
from es2_lightning.config.objects import check_words
from es2_lightning.errors import UserError


def check_evaluate(config: EvaluateConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A run or an adapter that is not there, both at once, a model that is not there,
            a word or value that an attack or a judge does not take, prompts that cannot be read,
            a class without prompts.
    """
    from es2_lightning.prompts.requirements import require_both_classes

    config = check_model_given(config)
    if not config.evaluate.enabled:
        raise UserError("evaluate=none measures nothing. Accepted: evaluate=small, …=default.")
    check_loggers(config.logger)
    for name, node in config.attack.items():
        check_words(node, f"attack.{name}")
    build_judges(config.judge)
    build_capability(config.capability)
    check_values(config.model)
    refuse_missing_folder(config.model.name_or_path)
    require_both_classes(read_prompts(config.data.source))


def check_built(config: EvaluateConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A device that is not there, a value that an attack does not take, a model that
            cannot be loaded as was set.
    """
    if config.run is not None:
        config, _ = take_over(config, job.overrides())
    from es2_lightning.backbone.devices import choose_device

    choose_device(config.device)
    from es2_lightning.backbone.loading import read_depth

    read_depth(config.model)
    build_attacks(config.attack)
