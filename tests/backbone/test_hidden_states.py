"""Hidden states by layer number, against what transformers itself gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.chat import TokenBatch
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.hidden_states import capture_hidden_states, last_token_states
from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.backbone.steering import steer
from es2_lightning.backbone.structure import find_structure, num_layers
from es2_lightning.errors import UserError

from ..tiny_models import ARCHITECTURES, Architecture, tiny_chat_model, tiny_splits

PROMPTS = [p.text for p in tiny_splits(4).train.prompts]


def encoded(chat_model: ChatModel) -> TokenBatch:
    batch = chat_model.renderer.encode(PROMPTS)
    assert len(set(batch.last_prompt_index.tolist())) > 3, "the rows must differ in length"
    return batch


@torch.no_grad()
def transformers_states(chat_model: ChatModel, *, before_norm: bool) -> list[Tensor]:
    """Layers 0 … L as transformers gives them, layer L before or after the final norm."""
    batch = encoded(chat_model)
    model = copy.deepcopy(chat_model.model)
    # By itself transformers puts the final norm's output in the last place.
    model.config.tie_last_hidden_states = not before_norm
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        output_hidden_states=True,
        use_cache=False,
    )
    return list(output.hidden_states)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_equals_transformers(architecture: Architecture) -> None:
    chat_model = tiny_chat_model(architecture)
    batch, depth = encoded(chat_model), chat_model.num_layers
    captured = {}
    for after_final_norm in (False, True):
        with (
            torch.no_grad(),
            capture_hidden_states(
                chat_model.model, range(depth + 1), after_final_norm=after_final_norm
            ) as states,
        ):
            chat_model.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
        captured[after_final_norm] = states
        assert sorted(states) == list(range(depth + 1))
        wanted = transformers_states(chat_model, before_norm=not after_final_norm)
        for layer in range(depth):
            assert torch.equal(states[layer], wanted[layer]), layer
    assert torch.equal(
        captured[True][depth], transformers_states(chat_model, before_norm=False)[-1]
    )
    norm = find_structure(chat_model.model).final_norm
    with torch.no_grad():
        assert torch.equal(norm(captured[False][depth]), captured[True][depth])
    assert not torch.allclose(captured[False][depth], captured[True][depth])


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text"])
def test_the_terminal_layer_equals_transformers_without_its_norm(
    architecture: Architecture,
) -> None:
    chat_model = tiny_chat_model(architecture)
    batch = encoded(chat_model)
    with torch.no_grad(), capture_hidden_states(chat_model.model, [-1]) as states:
        chat_model.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
    assert torch.equal(states[4], transformers_states(chat_model, before_norm=True)[-1])


def test_last_token_states_are_each_prompts_own_whatever_the_batch() -> None:
    chat_model = tiny_chat_model()
    layers = [0, 2, -1]
    together = last_token_states(chat_model, PROMPTS, layers, batch_size=5)
    assert together.shape == (len(PROMPTS), 3, 32)
    for i, prompt in enumerate(PROMPTS):
        ids = chat_model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        with torch.no_grad():
            hidden = chat_model.model(input_ids=ids, output_hidden_states=True).hidden_states
        # One unpadded row: here, and only here, the last position is the last token.
        torch.testing.assert_close(together[i, 1], hidden[2][0, -1], rtol=1e-4, atol=1e-5)


def test_through_an_adapter_and_under_activation_checkpointing_gradients_are_the_same() -> None:
    gradients = []
    for checkpointing in (False, True):
        chat_model = tiny_chat_model()
        torch.manual_seed(0)
        model = add_lora(chat_model.model, r=2, lora_dropout=0.0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        batch = encoded(chat_model)
        with capture_hidden_states(model, [2, 4]) as states:
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        (states[2].norm() + states[4].norm()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys() and plain
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient)


def test_the_first_firing_is_kept_and_hooks_go_even_after_a_failure() -> None:
    chat_model = tiny_chat_model()
    model, batch = chat_model.model, encoded(chat_model)
    with torch.no_grad(), capture_hidden_states(model, [0, 3]) as states:
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        first = states[3].clone()
        model(input_ids=batch.input_ids.flip(0), use_cache=False)
        assert torch.equal(states[3], first)
    with pytest.raises(KeyboardInterrupt), capture_hidden_states(model, [1]):
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="out of range"), capture_hidden_states(model, [1, 9]):
        pass
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_steering_replaces_what_capturing_reads(layer: int) -> None:
    chat_model = tiny_chat_model("gpt2")
    batch = encoded(chat_model)

    def run() -> Tensor:
        return chat_model.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits

    with torch.no_grad():
        plain = run()
        with steer(chat_model.model, {layer: lambda h: h + 1.0}):
            steered = run()
        with steer(chat_model.model, {layer: lambda h: h.clone()}):
            assert torch.equal(run(), plain)
        # What stands after the steered layer sees the new state, whoever computes it.
        inputs = []
        blocks = find_structure(chat_model.model).blocks
        if layer < 4:
            handle = blocks[layer].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
            with capture_hidden_states(chat_model.model, [layer]) as states:
                run()
            with steer(chat_model.model, {layer: lambda h: h + 1.0}):
                run()
            handle.remove()
            seen = inputs[1] if layer else inputs[0] + 1.0
            assert torch.equal(seen, states[layer] + 1.0)
    assert not torch.allclose(steered, plain)


def test_layer_numbers() -> None:
    assert [resolve_layer(n, 32) for n in (0, 1, 32, -1, -32)] == [0, 1, 32, 32, 1]
    for wrong in (33, -33):
        with pytest.raises(UserError, match=r"32 layers: accepted are 1 … 32"):
            resolve_layer(wrong, 32)
    chat_model = tiny_chat_model("gpt2")
    assert num_layers(chat_model.model.config) == chat_model.num_layers == 4


def test_a_model_of_another_shape_is_refused() -> None:
    with pytest.raises(UserError, match="decoder-only"):
        model = tiny_chat_model().model
        model.model.layers = torch.nn.ModuleList(list(model.model.layers)[:3])
        find_structure(model)
