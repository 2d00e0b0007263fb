"""Interruptions, and the checkpoint that is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch

from es2_lightning.errors import UserError
from es2_lightning.training.fitting import fit
from es2_lightning.training.last_checkpoint import LastCheckpoint
from es2_lightning.training.settings import ScheduleSettings

from .tiny_runs import Record, TinyRun, trainable


class CtrlC(L.Callback):
    """Interrupts as a user does, after some batches."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self.after:
            os.kill(os.getpid(), signal.SIGINT)


def trainer(*callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def run() -> TinyRun:
    schedule = ScheduleSettings(kl_threshold=100.0, max_steps=4)
    return TinyRun(reference="adapter", dropout=0.1, schedule=schedule)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process started in the background may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stays_one_and_what_is_left_resumes(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole, record = run(), Record()
    fit(trainer(record, LastCheckpoint(tmp_path / "whole")), whole.module, whole.data)

    torch.manual_seed(5)
    stopped = run()
    interrupted = trainer(LastCheckpoint(tmp_path, every_n_train_steps=2), CtrlC(after=5))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, stopped.module, stopped.data)
    assert signal.getsignal(signal.SIGINT) is before
    assert [p.name for p in tmp_path.glob("*.*")] == ["last.ckpt"]

    resumed, rest = run(), Record()
    again = trainer(rest, LastCheckpoint(tmp_path))
    fit(again, resumed.module, resumed.data, ckpt_path=tmp_path / "last.ckpt")
    assert rest.losses == record.losses[4:]
    left = [torch.load(p / "last.ckpt", weights_only=True) for p in (tmp_path, tmp_path / "whole")]
    for name, parameter in trainable(whole.module).items():
        assert all(torch.equal(c["state_dict"][name], parameter) for c in left)


def test_a_failure_is_raised_as_it_is() -> None:
    class Failing(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            raise SystemExit(7)

    broken = run()
    with pytest.raises(SystemExit) as error:
        fit(trainer(Failing()), broken.module, broken.data)
    assert error.value.code == 7


def test_a_missing_and_an_unreadable_checkpoint_are_named(tmp_path: Path) -> None:
    one = run()
    with pytest.raises(UserError, match=r"nowhere\.ckpt: no such file"):
        fit(trainer(), one.module, one.data, ckpt_path="nowhere.ckpt")
    for content in (b"", b"no checkpoint"):
        path = tmp_path / "broken.ckpt"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.ckpt: the file cannot be read"):
            fit(trainer(), one.module, one.data, ckpt_path=path)
