"""What types and ranges cannot say of a training config; asked before any weights load."""

from __future__ import annotations

from pathlib import Path

from es2_lightning.config.objects import build, build_optimizer
from es2_lightning.config.train_schema import TrainConfig
from es2_lightning.errors import UserError


def check_train(config: TrainConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A model that is not there, a layer that it lacks, stages without a budget or
            with too many thresholds, a checkpoint that is not there, a word or value that an
            object does not take, prompts that cannot be read, a class without prompts.
    """
    from es2_lightning.backbone.loading import check_trainable, read_depth
    from es2_lightning.evaluation_run import build_attacks, build_capability, build_judges
    from es2_lightning.prompts.requirements import require_both_classes
    from es2_lightning.training.layer_sets import select_layers
    from es2_lightning.training.schedule import make_stages

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
    devices = config.trainer.get("devices", 1)
    if (isinstance(devices, int) and devices > 1) or (
        isinstance(devices, list) and len(devices) > 1
    ):
        raise UserError(f"trainer.devices={devices}: a run trains on one device. Accepted: 1.")
    build_optimizer(config.optimizer)
    if config.judge:
        build_judges(config.judge)
    if config.evaluate.enabled:
        build_attacks(config.attack)
        build_capability(config.capability)
        if not config.judge:
            raise UserError("evaluate needs a judge: judge=[keyword], or evaluate=none")
    if config.model.mode == "qlora" and config.trainer.get("accelerator") == "cpu":
        raise UserError(
            "model.mode=qlora with trainer.accelerator=cpu: 4-bit weights need a GPU. Accepted: "
            "trainer=gpu, or model.mode=lora."
        )
    depth = read_depth(config.model)
    check_trainable(config.model)
    layers = select_layers(config.layers, depth)
    # The emergence layer that is yet to be found and the last layer make two stages.
    make_stages(config.schedule, layers or [1, depth])
    require_both_classes(build(config.data.source, "data.source").load())
