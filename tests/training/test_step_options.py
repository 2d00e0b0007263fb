"""Options that change how a step is computed inside the model: norms, recomputation, precision."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.checkpointing import enable_checkpointing
from es2_lightning.backbone.compiled import compile_blocks
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.lean_norms import _recomputed, make_norms_lean
from es2_lightning.training.cost.memory import count_bytes
from es2_lightning.training.settings import StepSettings
from es2_lightning.training.step_setup import set_up_step

from ..tiny_models import Architecture, tiny_chat_model
from .test_step_equalities import Case, gradients, objective_of, plain_step, tiny_case


def recompute_blocks(model: Any) -> None:
    enable_checkpointing(model)
    model.train()


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "lean norms": make_norms_lean,
    "recomputed blocks": recompute_blocks,
    "both": lambda model: (make_norms_lean(model), recompute_blocks(model)),
    "compiled": compile_blocks,
}


def error_of(case: Case, plain: Case, packing: Packing, step: StepSettings) -> tuple[float, float]:
    """Relative errors of loss and gradient."""
    loss, _ = plain_step(plain, [1], after_norm=False)
    wanted = gradients(plain, loss)
    objective = objective_of(case, "adapter", step, packing, after_norm=False)
    ours = objective(case.batch, [1]).loss
    found = gradients(case, ours)
    return (
        abs(float(ours.detach()) / float(loss.detach()) - 1),
        float((found - wanted).norm() / wanted.norm()),
    )


@pytest.mark.parametrize("packing", ["off", "grid", "block_mask"])
@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize(
    "option",
    [pytest.param(o, marks=pytest.mark.slow) if o == "compiled" else o for o in OPTIONS],
)
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_the_loss_and_gradients_stay(
    architecture: Architecture, option: str, micro_batch: int | None, packing: Packing
) -> None:
    case, plain = (tiny_case(architecture, t, "all") for t in (torch.float32, torch.float64))
    plain.chat_model.model.load_state_dict(case.chat_model.model.state_dict())
    OPTIONS[option](case.chat_model.model)
    step = StepSettings(micro_batch=micro_batch)
    assert max(error_of(case, plain, packing, step)) <= 1e-6


def test_lean_norms_and_recomputed_blocks_take_less_memory() -> None:
    def peak(option: str | None) -> int:
        # In bf16, where norms keep copies in float32; a frozen norm in float32 has none to keep.
        case = tiny_case("llama", torch.bfloat16, "all")
        if option:
            OPTIONS[option](case.chat_model.model)
        objective = objective_of(case, "adapter", StepSettings(), "grid", after_norm=False)
        return count_bytes(lambda: gradients(case, objective(case.batch, [1]).loss)).peak

    plain = peak(None)
    assert peak("lean norms") < 0.95 * plain
    assert peak("recomputed blocks") < 0.8 * plain


def test_bf16_autocast_keeps_the_heads_part_in_float32() -> None:
    """The blocks' rounding is what is left: the head's own would be far larger at a small KL."""
    case, plain = (tiny_case("llama", t, "all") for t in (torch.float32, torch.float64))
    plain.chat_model.model.load_state_dict(case.chat_model.model.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradient = error_of(case, plain, "grid", StepSettings())
    assert loss < 0.02 and gradient < 0.1


def test_the_shared_prefix_and_dropout(caplog: pytest.LogCaptureFixture) -> None:
    model = add_lora(tiny_chat_model().model, r=4, lora_dropout=0.1)
    said = {}
    with caplog.at_level(logging.INFO):
        for shared in ("auto", "always", "never"):
            caplog.clear()
            set_up_step(model, StepSettings(shared_prefix=shared), packing="grid")
            said[shared] = caplog.text
    assert "step.shared_prefix=always computes them once" in said["auto"]
    assert "share the dropout" in said["always"]
    assert said["never"] == ""
    with caplog.at_level(logging.INFO):
        set_up_step(model, StepSettings(shared_prefix="always"), packing="off")
    assert "has no effect" in caplog.text


def test_a_prefix_is_shared_in_eval_mode_though_there_is_dropout() -> None:
    case = tiny_case("llama", torch.float32, "all")
    case.chat_model.model = add_lora(tiny_chat_model().model, r=4, lora_dropout=0.1)
    for shared, wanted in (("auto", (False, True)), ("always", (True, True)), ("never", (0, 0))):
        step = StepSettings(shared_prefix=shared)
        objective = objective_of(case, "copy", step, "grid", after_norm=False)
        seen = []
        for training in (True, False):
            case.chat_model.model.train(training)
            seen.append(objective.shares_prefix())
        assert tuple(seen) == wanted, shared


def test_a_native_step_with_a_mask_of_all_rows_is_the_plain_one() -> None:
    """sdpa finds the rows by one mask for all blocks; rows that ended early would not fit it."""
    case, plain = (tiny_case("llama", torch.float32, "all") for _ in range(2))
    assert max(error_of(case, plain, "native", StepSettings(shared_prefix="never"))) < 1e-5


def test_lean_norms_take_what_theirs_take() -> None:
    class Named(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, gate: float) -> torch.Tensor:
            return x * gate

    assert float(_recomputed(Named().forward, torch.ones(()), gate=3.0)) == 3


@pytest.mark.parametrize("change", [make_norms_lean, compile_blocks])
def test_a_copy_computes_with_its_own_weights(
    change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack fine-tunes a copy of what was trained: not the original's blocks."""
    # As torch.compile does: a function around the forward, which deepcopy takes as it is.
    monkeypatch.setattr(torch, "compile", lambda f, **_: lambda *args, **kwargs: f(*args, **kwargs))
    model = add_lora(tiny_chat_model().model)
    change(model)
    copied, ids = copy.deepcopy(model), torch.arange(3, 9)[None]
    for parameter in copied.get_decoder().parameters():
        parameter.data.mul_(2)
    fresh = add_lora(tiny_chat_model().model)
    fresh.load_state_dict(copied.state_dict())
    with torch.no_grad():
        assert torch.equal(copied(input_ids=ids).logits, fresh(input_ids=ids).logits)
