"""A saved adapter comes back onto its base model, and onto no other."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from es2_lightning.backbone.adapter_folder import CONFIG, WEIGHTS
from es2_lightning.backbone.adapters import (
    adapter_is_on,
    add_lora,
    load_adapter,
    save_adapter,
)
from es2_lightning.errors import UserError

from ..tiny_models import tiny_chat_model


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.arange(6, 20)[None], use_cache=False).logits


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of an adapter that changes what the tiny Llama says."""
    model = add_lora(tiny_chat_model().model, r=2)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(model, tmp_path / "adapter")
    torch.save(logits(model), tmp_path / "logits.pt")
    return tmp_path / "adapter"


def test_it_gives_the_tuned_models_logits_frozen_and_in_eval_mode(saved: Path) -> None:
    chat_model = tiny_chat_model()
    base = logits(chat_model.model)
    load_adapter(chat_model, saved)
    tuned = torch.load(saved.parent / "logits.pt")
    torch.testing.assert_close(logits(chat_model.model), tuned)
    assert not torch.allclose(tuned, base) and adapter_is_on(chat_model.model)
    assert not any(p.requires_grad for p in chat_model.model.parameters())
    assert not any(m.training for m in chat_model.model.modules())


@pytest.mark.parametrize(
    ("other_base", "message"),
    [
        ({"hidden_size": 64}, "has the shape"),
        ({"num_hidden_layers": 2}, "modules that the base model does not have"),
        ({"num_hidden_layers": 5}, "no weights for some modules"),
        ({"architecture": "gpt2"}, "does not fit the base model"),
    ],
)
def test_one_that_does_not_fit_is_refused_and_leaves_the_base_as_it_was(
    saved: Path, other_base: dict, message: str
) -> None:
    chat_model = tiny_chat_model(**other_base)
    before, names = logits(chat_model.model), set(chat_model.model.state_dict())
    flags = [p.requires_grad for p in chat_model.model.parameters()]
    with pytest.raises(UserError, match=message):
        load_adapter(chat_model, saved)
    assert set(chat_model.model.state_dict()) == names
    assert [p.requires_grad for p in chat_model.model.parameters()] == flags
    assert torch.equal(logits(chat_model.model), before)


def test_missing_and_damaged_files_are_named(saved: Path, tmp_path: Path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(UserError) as refused:
            load_adapter(tiny_chat_model(), folder)
        return str(refused.value)

    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert f"Did you mean {saved}?" in refusal(saved.parent)
    (saved / WEIGHTS).rename(saved / "kept")
    assert "only safetensors are read" in refusal(saved)
    (saved / WEIGHTS).write_bytes(b"no weights")
    assert "cannot be read" in refusal(saved)
    (saved / "kept").rename(saved / WEIGHTS)
    (saved / CONFIG).write_text("{}")
    assert "its peft_type is None" in refusal(saved)


def test_an_adapter_without_some_of_its_weights_is_refused(saved: Path) -> None:
    weights = load_file(saved / WEIGHTS)
    weights.pop(sorted(weights)[0])
    save_file(weights, saved / WEIGHTS)
    with pytest.raises(UserError, match="no weights for some modules: 1 such as"):
        load_adapter(tiny_chat_model(), saved)


def test_another_base_of_the_same_shape_is_warned_of(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": "org/other"}))
    with caplog.at_level(logging.WARNING):
        load_adapter(tiny_chat_model(), saved)
    assert "was trained on org/other" in caplog.text
