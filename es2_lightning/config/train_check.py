"""What types and ranges cannot say of a training config; asked before any weights load.

What takes no time is asked first: a mistake that needs neither torch nor transformers to be seen
is told before they are imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es2_lightning.backbone.model_folder import depth_of, read_config_json
from es2_lightning.backbone.settings_check import check_gpu, check_mode, check_values
from es2_lightning.config.devices import processes_of
from es2_lightning.config.evaluation_objects import build_attacks, build_capability, build_judges
from es2_lightning.config.loaded_prompts import read_prompts
from es2_lightning.config.logger_check import check_loggers
from es2_lightning.config.method_words import check_method
from es2_lightning.config.objects import build_optimizer, check_number, check_words
from es2_lightning.config.ranks import this_rank
from es2_lightning.config.train_schema import TrainConfig
from es2_lightning.errors import UserError
from es2_lightning.training.layer_sets import select_layers
from es2_lightning.training.schedule import make_stages
from es2_lightning.training.strategy_names import check_strategy


def check_train(config: TrainConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A model that is not there, a layer that it lacks, stages without a budget or
            with too many thresholds, a checkpoint that is not there, a word or value that an
            object does not take, prompts that cannot be read, a class without prompts.
    """
    _check_together(config)
    _check_objects(config)
    check_values(config.model)
    check_mode(config.model)
    found = read_config_json(config.model)
    depth = None if found is None else depth_of(found)
    if depth is not None:
        _check_layers(config, depth)
    from es2_lightning.prompts.requirements import require_both_classes

    require_both_classes(read_prompts(config.data.source))


def check_built(config: TrainConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A value that the optimizer, the trainer or an attack does not take, a model that
            cannot be loaded or trained as was set.
    """
    if this_rank() is None:
        processes_of(config.trainer)
    build_optimizer(config.optimizer)
    if config.estimate:
        _check_estimated(config.method["_target_"])
    _check_method_values(config.method)
    check_gpu(config.model)
    from es2_lightning.training.trainer import make_trainer

    make_trainer(config.trainer, folder=Path(), loggers=[], callbacks=[])
    from es2_lightning.backbone.loading import check_trainable, read_depth

    _check_layers(config, read_depth(config.model))
    check_trainable(config.model)
    if config.evaluate.enabled:
        build_attacks(config.attack)


def _check_together(config: TrainConfig) -> None:
    """Values that exclude each other, or have a better place."""
    if config.loss.harmful_kl_weight > 0 and not config.judge:
        raise UserError(
            "loss.harmful_kl_weight needs a judge that tells refusals: judge=keyword, or "
            "loss.harmful_kl_weight=0"
        )
    if config.ckpt_path not in (None, "last") and not Path(str(config.ckpt_path)).is_file():
        raise UserError(
            f"ckpt_path={config.ckpt_path}: no such file. Accepted: a checkpoint that a run wrote, "
            "such as outputs/<run>/checkpoints/last.ckpt, or last."
        )
    if config.loss.kl_positions == "response" and not config.data.use_responses:
        raise UserError(
            "loss.kl_positions=response with data.use_responses=false: no response is read. "
            "Accepted: data.use_responses=true with it, or loss.kl_positions=all or last."
        )
    if config.evaluate.enabled and not config.judge:
        raise UserError("evaluate needs a judge: judge=[keyword], or evaluate=none")
    if config.model.mode == "qlora" and config.trainer.get("accelerator") == "cpu":
        raise UserError(
            "model.mode=qlora with trainer.accelerator=cpu: 4-bit weights need a GPU. Accepted: "
            "trainer=gpu, or model.mode=lora."
        )
    _check_trainer(config)


def _check_trainer(config: TrainConfig) -> None:
    for word in ("max_epochs", "max_steps"):
        if word in config.trainer:
            raise UserError(
                f"trainer.{word}={config.trainer[word]}: stages have budgets of their own. "
                f"Accepted: schedule.{word}."
            )
    accumulated = config.trainer.get("accumulate_grad_batches", 1)
    if not (isinstance(accumulated, int) and accumulated >= 1):
        raise UserError(
            f"trainer.accumulate_grad_batches={accumulated} is not accepted. "
            "Accepted: a whole number ≥ 1."
        )
    if "micro_batch" in config.trainer:
        raise UserError(
            f"trainer.micro_batch={config.trainer['micro_batch']}: how a step is computed is a "
            "group of its own. Accepted: step.micro_batch."
        )
    check_strategy(config.trainer.get("strategy", "auto"))


def _check_objects(config: TrainConfig) -> None:
    """The words of what the config names; judges and capability import nothing heavy."""
    check_words({**config.trainer, "_target_": "lightning.Trainer"}, "trainer")
    check_words(config.optimizer, "optimizer")
    for word in ("lr", "weight_decay"):
        check_number(config.optimizer, word, "optimizer")
    check_loggers(config.logger)
    for name, node in config.callbacks.items():
        check_words(node, f"callbacks.{name}")
    check_method(config.method)
    if config.judge:
        build_judges(config.judge)
    if config.evaluate.enabled:
        for name, node in config.attack.items():
            check_words(node, f"attack.{name}")
        build_capability(config.capability)


def _check_estimated(target: str) -> None:
    from hydra.utils import get_class

    method: Any = get_class(target)
    if not method.estimated:
        raise UserError(
            f"estimate=true counts the step of method=es2, not that of {method.__name__}. "
            "Accepted: method=es2, or estimate=false."
        )


def _check_method_values(node: Mapping[str, Any]) -> None:
    from hydra.utils import get_class

    method: Any = get_class(node["_target_"])
    method.check_own(**{word: value for word, value in node.items() if word != "_target_"})


def _check_layers(config: TrainConfig, depth: int) -> None:
    layers = select_layers(config.layers, depth)
    # The emergence layer that is yet to be found and the last layer make two stages.
    make_stages(config.schedule, layers or [1, depth])
