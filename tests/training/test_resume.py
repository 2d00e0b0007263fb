"""A resumed run ends where one that was never stopped ends, bit for bit, dropout included."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from es2_lightning.errors import UserError
from es2_lightning.training.settings import LossSettings, ScheduleSettings

from ..tiny_models import tiny_chat_model
from .tiny_runs import Record, TinyRun, every_step, trainable


def run(**values: Any) -> TinyRun:
    defaults: dict[str, Any] = {
        "reference": "adapter",
        "dropout": 0.1,
        "harmful_per_batch": 3,  # 4 batches in an epoch
        "loss": LossSettings(kl_weight=0.05, harmful_kl_weight=0.5),
        "refusals": 5,
        "schedule": ScheduleSettings(kl_threshold=100.0, max_steps=6),
    }
    return TinyRun(**(defaults | values))


def assert_resumes(
    folder: Path, steps: list[int], *, accumulate: int = 1, **values: Any
) -> TinyRun:
    whole, record = run(**values), Record()
    torch.manual_seed(3)
    whole.fit(
        record, every_step(folder), enable_checkpointing=True, accumulate_grad_batches=accumulate
    )
    assert whole.moved() > 1e-3
    final = trainable(whole.module)
    for step in steps:
        torch.manual_seed(4)  # another process, other random numbers
        resumed, rest = run(**values), Record()
        resumed.fit(
            rest, ckpt_path=str(folder / f"{step}.ckpt"), accumulate_grad_batches=accumulate
        )
        assert rest.losses == record.losses[step * accumulate :], step
        assert resumed.ends == whole.ends, step
        for name, parameter in trainable(resumed.module).items():
            assert torch.equal(parameter, final[name]), (step, name)
    return whole


def test_mid_epoch_at_its_end_at_a_stage_change_and_after_it(tmp_path: Path) -> None:
    assert_resumes(tmp_path, [1, 4, 6, 7])


def test_with_accumulated_batches(tmp_path: Path) -> None:
    assert_resumes(tmp_path, [1, 2, 6], accumulate=2)


def test_after_a_dropped_step(tmp_path: Path) -> None:
    whole = assert_resumes(
        tmp_path,
        [5, 6, 7],
        layers=(2, 3, 4),
        schedule=ScheduleSettings(kl_threshold=[100.0, 0.042, 100.0], max_steps=4),
        optimizer=partial(torch.optim.AdamW, lr=5e-3),
    )
    assert [reason for _, reason, _ in whole.ends] == ["budget", "kl_threshold", "budget"]
    assert 0 < whole.ends[1][2] < 4


@pytest.mark.slow
def test_early_stop(tmp_path: Path) -> None:
    """Two epochs without improvement end a stage, whichever of their steps it was stopped at."""
    whole = assert_resumes(
        tmp_path,
        [3, 5, 9, 13],
        schedule=ScheduleSettings(
            kl_threshold=100.0, max_steps=40, patience=2, min_improvement=0.9
        ),
    )
    assert [reason for _, reason, _ in whole.ends] == ["converged", "converged"]


@pytest.mark.parametrize("steps", [(4, 5), (4, 8), (8, 10), (3, 4)])
def test_again_and_again(steps: tuple[int, ...], tmp_path: Path) -> None:
    """What a resumed run saves is as good, also where it went on at an epoch's end."""
    whole = run()
    whole.fit(every_step(tmp_path / "0"), enable_checkpointing=True)
    for number, step in enumerate(steps):
        resumed = run()
        checkpoint = tmp_path / str(number) / f"{step}.ckpt"
        later = every_step(tmp_path / str(number + 1))
        resumed.fit(later, enable_checkpointing=True, ckpt_path=str(checkpoint))
    final = trainable(whole.module)
    for name, parameter in trainable(resumed.module).items():
        assert torch.equal(parameter, final[name]), name


def test_all_weights_train(tmp_path: Path) -> None:
    assert_resumes(tmp_path, [3], mode="full", reference="copy")


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = run()
    whole.fit(every_step(tmp_path), enable_checkpointing=True)
    assert len(whole.ends) == 2
    again, record = run(), Record()
    again.fit(record, ckpt_path=str(tmp_path / "12.ckpt"))
    assert not record.losses and again.ends == whole.ends
    longer, record = run(schedule=ScheduleSettings(kl_threshold=100.0, max_steps=[6, 9])), Record()
    longer.fit(record, ckpt_path=str(tmp_path / "11.ckpt"))
    assert len(record.losses) == 4 and [steps for *_, steps in longer.ends] == [6, 9]


def test_the_checkpoint_holds_what_trains_and_plain_containers(tmp_path: Path) -> None:
    whole = run(reference="copy")
    whole.fit(every_step(tmp_path), enable_checkpointing=True)
    loaded = torch.load(tmp_path / "12.ckpt", weights_only=True)
    assert loaded["state_dict"].keys() == trainable(whole.module).keys()
    assert all("lora_" in name for name in loaded["state_dict"])
    trained = sum(p.numel() for p in whole.start.values())
    held = sum(t.numel() for t in loaded["state_dict"].values())
    assert held == trained < sum(p.numel() for p in whole.module.parameters()) / 2
    assert loaded["es2"]["layers"] == [2, 4]
    norms = whole.module.objective.base_norms
    assert loaded["es2"]["base_norms"] == norms and all(norm > 0 for norm in norms.values())
    assert "hyper_parameters" not in loaded


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": (1, 4)}, r"trained with layers \[2, 4\], this run has \[1, 4\]"),
        (
            {"schedule": ScheduleSettings(kl_threshold=1.0, max_steps=6)},
            r"100\.0.*this run has.*1\.0",
        ),
        ({"mode": "full", "reference": "copy"}, r"lacks \d+ trainable weights"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    run().fit(every_step(tmp_path), enable_checkpointing=True)
    other = run(**changed)
    with pytest.raises(UserError, match=message):
        other.fit(ckpt_path=str(tmp_path / "3.ckpt"))


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    run().fit(every_step(tmp_path), enable_checkpointing=True)
    wider = run(chat_model=tiny_chat_model("llama", intermediate_size=96))
    with pytest.raises(UserError, match="reshapes"):
        wider.fit(ckpt_path=str(tmp_path / "3.ckpt"))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    other = torch.nn.Linear(2, 2)
    torch.save(
        {
            "state_dict": other.state_dict(),
            "pytorch-lightning_version": L.__version__,
            "epoch": 0,
            "global_step": 0,
            "loops": None,
            "optimizer_states": [],
            "lr_schedulers": [],
        },
        path,
    )
    with pytest.raises(UserError, match="not written by"):
        run().fit(ckpt_path=str(path))
