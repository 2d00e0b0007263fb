"""What trains in each mode, activation checkpointing, and what is refused before weights load."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.checkpointing import assert_checkpointing_active
from es2_lightning.backbone.compatibility import check_settings, check_training
from es2_lightning.backbone.hidden_states import capture_hidden_states
from es2_lightning.backbone.loading import check_trainable, load_chat_model, make_trainable
from es2_lightning.backbone.settings import LoraSettings, ModelSettings, StructureSettings
from es2_lightning.backbone.structure import find_structure
from es2_lightning.errors import UserError

from ..model_families import save_family

PROMPTS = ["Name a town.", "Hi"]
NO_DROPOUT = LoraSettings(r=2, lora_dropout=0.0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("mixtral", tmp_path_factory.mktemp("mixtral"))


def trainable(folder: Path, **settings: Any) -> ChatModel:
    chosen = ModelSettings(str(folder), **settings)
    check_trainable(chosen)
    chat_model = load_chat_model(chosen)
    make_trainable(chat_model, chosen)
    return chat_model


def trained_names(chat_model: ChatModel) -> set[str]:
    return {n for n, p in chat_model.model.named_parameters() if p.requires_grad}


def loss_of(chat_model: ChatModel) -> torch.Tensor:
    batch = chat_model.renderer.encode(PROMPTS)
    with capture_hidden_states(chat_model.model, [1, 3]) as states:
        output = chat_model.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
    return states[1].norm() + states[3].norm() + output.logits.float().norm()


def test_dora_adds_magnitudes(llama: Path) -> None:
    lora, dora = (
        trained_names(trainable(llama, mode=mode, lora=LoraSettings(r=2)))
        for mode in ("lora", "dora")
    )
    added = dora - lora
    assert added and all("lora_magnitude_vector" in name for name in added) and lora < dora


def test_full_trains_every_weight_and_tells_what_bfloat16_rounds_away(
    llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        chat_model = trainable(llama, mode="full", reference="copy", dtype="bfloat16")
    assert all(p.requires_grad for p in chat_model.model.parameters())
    assert "rounded away" in caplog.text


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("micro_batch", [None, 1])
def test_checkpointing_recomputes_each_block_and_changes_no_gradient(
    llama: Path, mode: str, micro_batch: int | None
) -> None:
    gradients, calls = [], []
    for on in (False, True):
        torch.manual_seed(0)
        chat_model = trainable(
            llama, mode=mode, reference="copy", gradient_checkpointing=on, lora=NO_DROPOUT
        )
        for name, parameter in chat_model.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        chat_model.model.train()
        assert_checkpointing_active(chat_model.model)
        ran: list[int] = []
        # A module inside the block: the block's own hooks stand outside of what is recomputed.
        for block in find_structure(chat_model.model).blocks:
            block.mlp.register_forward_pre_hook(lambda *_, seen=ran: seen.append(1))
        if micro_batch is None:
            loss = loss_of(chat_model)
        else:
            # As the training step cuts its batch: checkpoints inside checkpoints.
            from torch.utils.checkpoint import checkpoint

            loss = checkpoint(loss_of, chat_model, use_reentrant=False)
        loss.backward()
        calls.append(len(ran))
        gradients.append(
            {
                n: p.grad.clone()
                for n, p in chat_model.model.named_parameters()
                if p.grad is not None
            }
        )
    # Once forward and once in the backward pass, and once more inside an outer checkpoint.
    assert calls == ([3, 6] if micro_batch is None else [6, 9])
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_checkpointing_in_eval_mode_is_told(llama: Path) -> None:
    chat_model = trainable(llama, gradient_checkpointing=True)
    chat_model.model.eval()
    with pytest.raises(AssertionError, match="inactive"):
        assert_checkpointing_active(chat_model.model)
    assert not trained_names(chat_model) - trained_names(trainable(llama))


def test_experts_stay_as_they_are_with_dropout_and_are_adapted_without(
    moe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        attention = trained_names(trainable(moe))
    assert attention and all("self_attn" in name for name in attention)
    assert "experts stay as they are" in caplog.text
    chat_model = trainable(moe, lora=NO_DROPOUT)
    assert any("experts" in name for name in trained_names(chat_model))
    loss_of(chat_model).backward()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"mode": "full", "reference": "adapter"}, r"model\.reference=copy"),
        ({"mode": "full", "reference": "copy", "dtype": "float16"}, r"model\.dtype=float32"),
        ({"mode": "qlora", "reference": "copy"}, r"model\.reference=adapter"),
        ({"lora": LoraSettings(target_modules=["no_proj"])}, r"no_proj.*(.|\n)*q_proj"),
        ({"structure": StructureSettings(blocks="model.stack")}, r"model\.stack.*model\.layers"),
        ({"structure": StructureSettings(blocks="model.norm")}, "ModuleList"),
    ],
)
def test_what_cannot_train_is_refused_without_weights(changed: dict[str, Any], told: str) -> None:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    with pytest.raises(UserError, match=told):
        check_training(ModelSettings("a/b", **changed), config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a GPU is there")
def test_qlora_needs_a_gpu() -> None:
    with pytest.raises(UserError, match=r"(?s)qlora.*CUDA.*model\.mode=lora"):
        check_settings(ModelSettings("a/b", mode="qlora"), transformers.LlamaConfig())


@pytest.mark.parametrize("mode", ["full", "qlora"])
def test_weights_that_are_quantized_already_are_not_trained_or_quantized_again(mode: str) -> None:
    config = transformers.LlamaConfig()
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(UserError, match=r"(?s)gptq.*model\.mode=lora"):
        check_settings(ModelSettings("a/b", mode=mode, reference="copy"), config)


@pytest.mark.parametrize(
    ("config", "attention", "told"),
    [
        (transformers.Gemma2Config(), "sdpa", r"Accepted: null, eager"),
        (transformers.GptOssConfig(), "sdpa", r"Accepted: null, eager"),
        (transformers.LlamaConfig(), "spda", r"no such attention.*sdpa"),
        (transformers.LlamaConfig(), "flash_attention_2", r"16 bits.*bfloat16"),
    ],
)
def test_an_attention_that_the_model_does_not_take(config: Any, attention: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_settings(ModelSettings("a/b", attn_implementation=attention), config)
    check_settings(ModelSettings("a/b", attn_implementation="eager"), config)
    check_settings(ModelSettings("a/b"), config)


def test_the_attention_that_was_set_is_the_one_that_runs(llama: Path) -> None:
    for name, wanted in ((None, "sdpa"), ("eager", "eager"), ("sdpa", "sdpa")):
        loaded = load_chat_model(ModelSettings(str(llama), attn_implementation=name))
        assert loaded.model.config._attn_implementation == wanted
