"""A checkpoint is written as a whole, and refused where it does not belong."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from es2_lightning.backbone.model_identity import model_identity
from es2_lightning.errors import UserError
from es2_lightning.training.atomic_checkpoint_io import AtomicCheckpointIO
from es2_lightning.training.last_checkpoint import LastCheckpoint

from ..tiny_models import tiny_chat_model
from .tiny_runs import TinyRun, every_step


def _save_and_die(path: Path, function: str, calls: int) -> None:
    """Writes a checkpoint, and is killed when it calls a function for so many times."""
    owner: Any = torch if function == "save" else os
    original, count = getattr(owner, function), 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            if function == "save":  # In the middle of the file.
                Path(args[1]).write_bytes(b"half of a checkp")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, function, dying)
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)


@pytest.mark.parametrize(
    ("function", "calls", "left"),
    [("save", 1, 1), ("fsync", 1, 1), ("replace", 1, 1), ("fsync", 2, 2)],
)
def test_a_kill_during_a_save_leaves_one_whole_file(
    tmp_path: Path, function: str, calls: int, left: int
) -> None:
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    process = multiprocessing.get_context("fork").Process(
        target=_save_and_die, args=(path, function, calls)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert io.load_checkpoint(path) == {"step": left}
    io.save_checkpoint({"step": 3}, path)
    assert io.load_checkpoint(path) == {"step": 3}
    assert list(tmp_path.iterdir()) == [path]


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"evil": Path("x")}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match="weights_only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=False)


def test_nothing_is_written_in_the_middle_of_a_step(tmp_path: Path) -> None:
    """Resumed at a multiple of `every_n_train_steps`, the next batch ends at the same one."""
    steps = every_step(tmp_path)
    TinyRun(reference="adapter").fit(steps, accumulate_grad_batches=2)
    positions = []

    class Saves(LastCheckpoint):
        def _write(self, trainer: Any) -> None:
            positions.append(trainer.fit_loop.epoch_loop.batch_progress.total.processed)

    TinyRun(reference="adapter").fit(
        Saves(tmp_path, every_n_train_steps=2),
        ckpt_path=str(tmp_path / "2.ckpt"),
        accumulate_grad_batches=2,
    )
    assert positions == [6, 9, 9]  # After steps 4 and 6, and at the end; 3 batches an epoch.


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("weights", "model's weights"),
        ("template", "chat template"),
        ("tokenizer", "tokenizer"),
        ("system prompt", r"model\.system_prompt"),
    ],
)
def test_another_base_model_is_refused_by_name(tmp_path: Path, changed: str, told: str) -> None:
    def run(name: str = "") -> TinyRun:
        chat_model = tiny_chat_model("llama", seed=int(name == "weights"))
        if name == "template":
            chat_model.tokenizer.chat_template += " "
        elif name == "tokenizer":
            chat_model.tokenizer.add_tokens(["w41"])
        elif name == "system prompt":
            chat_model.renderer.system_prompt = "w1 w2"
        one = TinyRun(reference="adapter", chat_model=chat_model)
        one.module.identity = model_identity(chat_model)
        return one

    run().fit(every_step(tmp_path))
    path = str(tmp_path / "3.ckpt")
    run().fit(ckpt_path=path)
    with pytest.raises(UserError, match=rf"another base model.*{told} \(.* there, .* here\)"):
        run(changed).fit(ckpt_path=path)
