"""A base model that a job gives back is as it was loaded, or it is loaded again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from es2_lightning.backbone import kept_model
from es2_lightning.backbone.compiled import compile_blocks
from es2_lightning.backbone.kept_model import KeptModel
from es2_lightning.backbone.lean_norms import make_norms_lean
from es2_lightning.backbone.loading import load_chat_model, make_trainable
from es2_lightning.backbone.settings import LoraSettings, ModelSettings

from ..tiny_models import Architecture, tiny_chat_model

CPU = torch.device("cpu")
TOKENS = torch.arange(6, 26)[None]


def saved(folder: Path, architecture: Architecture = "llama", **changed: Any) -> ModelSettings:
    chat_model = tiny_chat_model(architecture, **changed)
    chat_model.model.save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)
    return ModelSettings(name_or_path=str(folder))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were loaded."""
    found: list[str] = []

    def counted(settings: ModelSettings) -> Any:
        found.append(settings.name_or_path)
        return load_chat_model(settings)

    monkeypatch.setattr(kept_model, "load_chat_model", counted)
    return found


def job(keeper: KeptModel, settings: ModelSettings, *, seed: int = 0) -> tuple[Any, Tensor]:
    """Two steps of an adapter; gives the base module and the tuned logits."""
    chat_model = keeper.load(settings, device=CPU)
    base = chat_model.model
    torch.manual_seed(seed)
    make_trainable(chat_model, settings)
    model = chat_model.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model.eval()(input_ids=TOKENS).logits
    model.train()
    keeper.give_back(chat_model)
    return base, logits


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"mode": "dora"}, {"gradient_checkpointing": True}],
    ids=["lora", "dora", "checkpointing"],
)
def test_the_next_job_takes_it_over_and_does_as_if_it_were_loaded(
    tmp_path: Path, loads: list[str], architecture: Architecture, changes: dict[str, Any]
) -> None:
    settings = replace(saved(tmp_path, architecture), **changes)
    keeper = KeptModel()
    first, _ = job(keeper, settings)
    # Another adapter, of another kind, on other modules.
    other = replace(settings, mode="lora", lora=LoraSettings(r=2, lora_dropout=0.1))
    second, logits = job(keeper, other, seed=3)
    assert second is first and len(loads) == 1
    alone, alone_logits = job(KeptModel(), other, seed=3)
    assert torch.equal(logits, alone_logits) and alone is not first
    kept, fresh = keeper.load(settings, device=CPU).model, load_chat_model(settings).model
    assert kept is first
    for (name, tensor), (fresh_name, wanted) in zip(
        kept.named_parameters(), fresh.named_parameters(), strict=True
    ):
        assert name == fresh_name and torch.equal(tensor, wanted)
        assert tensor.requires_grad == wanted.requires_grad and tensor.grad is None
    for module, wanted_module in zip(kept.modules(), fresh.modules(), strict=True):
        assert type(module) is type(wanted_module)
        assert module.training == wanted_module.training
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert not getattr(module, "gradient_checkpointing", False)


def test_lean_norms_and_compiled_blocks_are_undone(tmp_path: Path, loads: list[str]) -> None:
    settings = saved(tmp_path)
    keeper = KeptModel()
    chat_model = keeper.load(settings, device=CPU)
    make_norms_lean(chat_model.model)
    compile_blocks(chat_model.model)
    keeper.give_back(chat_model)
    again = keeper.load(settings, device=CPU)
    assert again.model is chat_model.model and len(loads) == 1
    assert not any("forward" in vars(module) for module in again.model.modules())


@torch.no_grad()
def _move_a_weight(model: Any) -> None:
    model.lm_head.weight[3, 5] += 1e-6


def _leave_a_hook(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda *_: None)


def _replace_a_module(model: Any) -> None:
    model.model.layers[1].mlp.act_fn = torch.nn.ReLU()


def _round_weights(model: Any) -> None:
    model.to(torch.bfloat16)


def _set_something(model: Any) -> None:
    model.config.rms_norm_eps = 1.0


@pytest.mark.parametrize(
    "change",
    [_move_a_weight, _leave_a_hook, _replace_a_module, _round_weights, _set_something],
)
def test_a_changed_model_is_not_kept(
    tmp_path: Path, loads: list[str], change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = saved(tmp_path)
    keeper = KeptModel()
    chat_model = keeper.load(settings, device=CPU)
    change(chat_model.model)
    with caplog.at_level("INFO"):
        keeper.give_back(chat_model)
    assert "loads the model anew" in caplog.text
    assert keeper.load(settings, device=CPU).model is not chat_model.model
    assert len(loads) == 2


def test_what_is_not_given_back_is_loaded_again(tmp_path: Path, loads: list[str]) -> None:
    settings = saved(tmp_path)
    keeper = KeptModel()
    keeper.load(settings, device=CPU)
    job(keeper, settings)
    assert len(loads) == 2


def test_another_model_or_setting_is_loaded(tmp_path: Path, loads: list[str]) -> None:
    settings = saved(tmp_path / "one")
    others = [
        replace(settings, dtype="bfloat16"),
        replace(settings, system_prompt="w1 w2"),
        replace(settings, attn_implementation="eager"),
        saved(tmp_path / "two"),
    ]
    for number, other in enumerate(others, start=1):
        keeper = KeptModel()
        job(keeper, settings)
        job(keeper, other)
        assert len(loads) == 2 * number
    keeper = KeptModel()
    job(keeper, settings)
    before = len(loads)
    os.utime(tmp_path / "one" / "model.safetensors", (1, 1))
    job(keeper, settings)
    assert len(loads) == before + 1


def test_all_weights_in_training_are_not_kept(tmp_path: Path, loads: list[str]) -> None:
    settings = replace(saved(tmp_path), mode="full", reference="copy")
    keeper = KeptModel()
    job(keeper, settings)
    job(keeper, settings)
    assert len(loads) == 2
