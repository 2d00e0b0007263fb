"""What the model answers while it trains, to a few prompts that stay the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from es2_lightning.backbone.chat_model import eval_mode
from es2_lightning.backbone.generation import generate
from es2_lightning.logged_keys import SAMPLES
from es2_lightning.training.sharding import ShardedStrategy, outside_of_root

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel
    from es2_lightning.prompts.prompt import Prompt, PromptSet

log = logging.getLogger(__name__)
FILE = "samples.jsonl"
COLUMNS = ("step", "epoch", "stage", "kind", "prompt", "output")


class Samples(L.Callback):
    """Generates after each epoch, greedily, on the first validation prompts of each kind.

    `samples.jsonl` in the run's folder, a line for each; a table in W&B, texts in TensorBoard. The
    first are the base model's, unless a run goes on. A sharded model answers on all ranks together.

    Args:
        prompts_per_kind: How many harmful prompts and as many of each kind of harmless ones.
        max_new_tokens: Where an answer is cut off.
    """

    def __init__(self, *, prompts_per_kind: int = 2, max_new_tokens: int = 48) -> None:
        self.prompts_per_kind = prompts_per_kind
        self.max_new_tokens = max_new_tokens
        self._chat_model: ChatModel | None = None
        self._rows: list[dict[str, Any]] = []

    def connect(self, chat_model: ChatModel) -> None:
        """Say whose answers they are; without that there are none."""
        self._chat_model = chat_model

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What the model answers before anything is trained; a run that goes on has that."""
        if trainer.global_step == 0:
            self._rows = []
            # Without a sanity check nothing of a sharded model has run yet; its root comes first.
            if not isinstance(trainer.strategy, ShardedStrategy) or trainer.num_sanity_val_steps:
                self._generate(trainer, pl_module)
        else:
            path = Path(trainer.default_root_dir) / FILE
            self._rows = [row for row in _read(path) if row["step"] <= trainer.global_step]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What it answers now."""
        if not trainer.sanity_checking:
            self._generate(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of the weights, which the run may give up now."""
        self._chat_model = None

    def _generate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        chat_model = self._chat_model
        if chat_model is None or not self.prompts_per_kind:
            return
        sharded = isinstance(trainer.strategy, ShardedStrategy)
        if not (sharded or trainer.is_global_zero):
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        prompts = chosen(datamodule.splits.validation, self.prompts_per_kind)
        with (
            eval_mode(chat_model.model),
            trainer.precision_plugin.forward_context(),
            outside_of_root(pl_module.objective),  # type: ignore[arg-type]
        ):
            outputs = generate(
                chat_model, prompts, max_new_tokens=self.max_new_tokens, together=sharded
            )
        if not trainer.is_global_zero:
            return
        # A validation that is made again after an interruption gives the same rows once more.
        self._rows = [row for row in self._rows if row["step"] != trainer.global_step]
        schedule = getattr(pl_module, "schedule", None)
        self._rows += [
            {
                "step": trainer.global_step,
                "epoch": trainer.current_epoch,
                "stage": getattr(schedule, "stage_index", 0),
                "kind": prompt.kind,
                "prompt": prompt.text,
                "output": output,
            }
            for prompt, output in zip(prompts, outputs, strict=True)
        ]
        new = self._rows[-len(prompts) :]
        _write(Path(trainer.default_root_dir) / FILE, self._rows)
        for logger in trainer.loggers:
            _tell(logger, self._rows, new, step=trainer.global_step)


def chosen(prompts: PromptSet, per_kind: int) -> list[Prompt]:
    """The first prompts of each kind, in the order in which kinds come."""
    kinds = dict.fromkeys(prompt.kind for prompt in prompts.prompts)
    return [prompt for kind in kinds for prompt in prompts.of(kind)[:per_kind]]


def _tell(
    logger: Logger, rows: list[dict[str, Any]], new: list[dict[str, Any]], *, step: int
) -> None:
    if isinstance(logger, WandbLogger):
        # All of them each time: W&B shows a run's newest table.
        data = [[row[column] for column in COLUMNS] for row in rows]
        logger.log_table(SAMPLES, columns=list(COLUMNS), data=data, step=step)
    elif isinstance(logger, TensorBoardLogger):
        for number, row in enumerate(new):
            prompt, output = (_as_code(row[name]) for name in ("prompt", "output"))
            text = f"**{row['kind']}**\n\n{prompt}\n\n**answer**\n\n{output}"
            logger.experiment.add_text(f"{SAMPLES}/{number}", text, global_step=step)


def _as_code(text: str) -> str:
    """What Markdown shows letter by letter."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    # Not splitlines, which also breaks at characters that JSON leaves as they are.
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # The line at which a run was killed.
    return rows
