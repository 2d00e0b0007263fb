"""Loading a chat model from a folder, and what is said where that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from es2_lightning.backbone.chat_model import ChatModel, eval_mode
from es2_lightning.backbone.loading import load_chat_model, make_trainable, read_depth
from es2_lightning.backbone.settings import LoraSettings, ModelSettings
from es2_lightning.errors import UserError

from ..tiny_models import tiny_chat_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model in the Hub's layout, whose tokenizer has no padding token."""
    chat_model = tiny_chat_model()
    chat_model.model.save_pretrained(tmp_path)
    chat_model.tokenizer.pad_token = None
    chat_model.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_is_loaded_in_eval_mode_with_a_padding_token(folder: Path) -> None:
    chat_model = ChatModel.load(str(folder), dtype="bfloat16", max_length=20)
    assert not chat_model.model.training and chat_model.model.dtype == torch.bfloat16
    assert chat_model.num_layers == 4 and chat_model.renderer.max_length == 20
    assert chat_model.tokenizer.pad_token == chat_model.tokenizer.eos_token
    batch = chat_model.renderer.encode(["w1", "w1 w2 w3"])
    assert batch.attention_mask.sum(1).tolist() == [4, 6]


def test_settings_say_what_is_loaded_and_what_trains(folder: Path) -> None:
    settings = ModelSettings(str(folder), lora=LoraSettings(r=3, target_modules=["q_proj"]))
    assert read_depth(settings) == 4
    chat_model = load_chat_model(settings)
    make_trainable(chat_model, settings)
    trained = [n for n, p in chat_model.model.named_parameters() if p.requires_grad]
    assert len(trained) == 8 and all("q_proj.lora_" in name for name in trained)
    whole = load_chat_model(settings)
    make_trainable(whole, ModelSettings(str(folder), mode="full"))
    assert all(p.requires_grad for p in whole.model.parameters())


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "no-such/model-anywhere"])
def test_a_missing_model_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"model\.name_or_path={name}: (.|\n)*folder"):
        ChatModel.load(name)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_chat_model().model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        ChatModel.load(str(folder))


def test_eval_mode_gives_every_module_its_own_mode_back() -> None:
    model = tiny_chat_model().model.train()
    model.model.norm.eval()
    before = [m.training for m in model.modules()]
    with pytest.raises(KeyboardInterrupt), eval_mode(model):
        assert not any(m.training for m in model.modules())
        raise KeyboardInterrupt
    assert [m.training for m in model.modules()] == before
