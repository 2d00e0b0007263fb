"""Shapes against the models that have them."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig

from es2_lightning.training.cost.named_shapes import NAMED_SHAPES, to_config
from es2_lightning.training.cost.shapes import ModelShape, shape_of


def _parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NAMED_SHAPES)
def test_named_shapes_have_their_models_parameters(name: str) -> None:
    shape = NAMED_SHAPES[name]
    config = to_config(shape)
    assert shape_of(config) == shape
    assert shape.parameters == _parameters(config)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama3_8b", 8.03), ("llama2_7b", 6.74), ("qwen2_5_7b", 7.62), ("llama3_70b", 70.55)],
)
def test_named_shapes_are_as_large_as_their_model_cards_say(name: str, billions: float) -> None:
    assert NAMED_SHAPES[name].parameters / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize(
    "architecture",
    [
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3_text",
        "phi3",
        "olmo2",
        "cohere",
        "granite",
        "gpt_neox",
        "gpt2",
        "opt",
        "phi",
        "qwen3_moe",
        "gpt_oss",
        "granitemoe",
    ],
)
def test_shapes_of_other_architectures_are_near(architecture: str) -> None:
    config = CONFIG_MAPPING[architecture]()
    assert shape_of(config).parameters == pytest.approx(_parameters(config), rel=0.02)


def test_a_token_meets_the_experts_that_it_is_sent_to() -> None:
    mixtral = NAMED_SHAPES["mixtral_8x7b"]
    assert mixtral.parameters / 1e9 == pytest.approx(46.7, abs=0.05)
    assert mixtral.active_parameters / 1e9 == pytest.approx(12.9, abs=0.05)
    dense = NAMED_SHAPES["llama3_8b"]
    assert dense.active_parameters == dense.parameters


ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("targets", "adapted"),
    [
        ("all-linear", ALL),
        (["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        (["self_attn.q_proj"], {"q_proj"}),
        (r".*\.(q|v)_proj", {"q_proj", "v_proj"}),
        (["qkv_proj"], {"q_proj", "k_proj", "v_proj"}),
        (["gate_up_proj", "down_proj"], {"gate_proj", "up_proj", "down_proj"}),
        (["a_name_that_nobody_knows"], ALL),
    ],
)
def test_which_linear_modules_lora_covers(targets: str | list[str], adapted: set[str]) -> None:
    assert NAMED_SHAPES["llama3_8b"].adapted(targets) == adapted


def test_without_a_gate_the_mlp_is_two_matrices() -> None:
    shape = ModelShape(
        num_layers=2,
        hidden_size=8,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
        vocab_size=10,
        gated_mlp=False,
    )
    assert [m.name for m in shape.linears][-2:] == ["up_proj", "down_proj"]
    assert shape.block_parameters == 4 * 64 + 2 * 8 * 32 + 2 * 8
