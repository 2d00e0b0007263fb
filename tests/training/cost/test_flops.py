"""The counter against closed forms; meta tensors against real ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from es2_lightning.backbone.checkpointing import enable_checkpointing
from es2_lightning.training.cost.flops import FlopCount, count_flops
from es2_lightning.training.cost.on_meta import meta_as_cpu
from tests.tiny_models import tiny_chat_model

DEVICES = ("meta", "cpu")
BATCH, LENGTH, VOCABULARY = 3, 9, 46
TOKENS = BATCH * LENGTH
# Of tests.tiny_models' Llama: width 32, 4 heads of 8, 2 of them for keys, MLP of 64.
DOWN = 2 * TOKENS * 64 * 32
LINEAR = 2 * TOKENS * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 2 * 32 * 64) + DOWN
ATTENTION = 2 * 2 * BATCH * 4 * LENGTH * LENGTH * 8
HEAD = 2 * TOKENS * 32 * VOCABULARY


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_two_products_forward_and_four_backward(
    device: str, mask: str | None, key_heads: int, dtype: torch.dtype
) -> None:
    def made(heads: int, length: int) -> Tensor:
        return torch.zeros(2, heads, length, 8, device=device, dtype=dtype, requires_grad=True)

    query, key, value = made(4, 6), made(key_heads, 7), made(key_heads, 7)
    mask_dtype = torch.bool if mask == "bool" else dtype
    attn_mask = None if mask is None else torch.zeros(6, 7, device=device, dtype=mask_dtype)

    def attend() -> None:
        scaled_dot_product_attention(
            *(query, key, value, attn_mask), is_causal=mask is None, enable_gqa=key_heads != 4
        ).sum().backward()

    product = 2 * (2 * 4) * 6 * 7 * 8
    assert count_flops(attend) == FlopCount(forward=2 * product, backward=4 * product)
    assert query.grad is not None and query.grad.shape == query.shape
    assert key.grad is not None and key.grad.shape == key.shape


@pytest.mark.parametrize("device", DEVICES)
def test_attention_with_dropout_is_matrix_products(device: str) -> None:
    # No fused kernel of a CPU drops out.
    query = torch.zeros(2, 4, 6, 8, device=device, requires_grad=True)

    def attend() -> None:
        scaled_dot_product_attention(query, query, query, dropout_p=0.5).sum().backward()

    product = 2 * (2 * 4) * 6 * 6 * 8
    assert count_flops(attend) == FlopCount(forward=2 * product, backward=4 * product)


def test_attention_on_meta_is_as_it_was_afterwards() -> None:
    query = torch.zeros(2, 4, 6, 8, device="meta")

    def operators() -> set[str]:
        with FlopCounterMode(display=False) as counter:
            scaled_dot_product_attention(query, query, query)
        return {str(op) for op in counter.get_flop_counts().get("Global", {})}

    before = operators()
    with meta_as_cpu():
        assert operators() != before
    assert operators() == before


@pytest.mark.parametrize("device", DEVICES)
def test_a_llama_costs_its_closed_form(device: str) -> None:
    step = _llama_step(device)
    assert count_flops(step, vocab_size=VOCABULARY) == FlopCount(
        forward=4 * (LINEAR + ATTENTION),
        backward=4 * 2 * (LINEAR + ATTENTION),
        head=3 * HEAD,
    )
    whole = count_flops(step)
    assert whole.head == 0 and whole.total == 3 * (4 * (LINEAR + ATTENTION) + HEAD)


@pytest.mark.parametrize("device", DEVICES)
def test_what_checkpointing_computes_again_counts_as_backward(device: str) -> None:
    plain = count_flops(_llama_step(device), vocab_size=VOCABULARY)
    again = count_flops(_llama_step(device, checkpointing=True), vocab_size=VOCABULARY)
    # torch stops once it has what the backward pass needs: nobody needs a block's output.
    assert again.backward - plain.backward == 4 * (LINEAR + ATTENTION - DOWN)
    assert (again.forward, again.head) == (plain.forward, plain.head)


def test_counts_add_up() -> None:
    assert FlopCount(1, 2, 3) + FlopCount(10, 20, 30) == FlopCount(11, 22, 33)
    assert FlopCount(1, 2, 3).total == 6


def _llama_step(device: str, *, checkpointing: bool = False):  # type: ignore[no-untyped-def]
    model = tiny_chat_model().model.to(device).train()
    if checkpointing:
        enable_checkpointing(model)
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.long, device=device)
    mask = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool, device=device).tril()

    def step() -> None:
        model(input_ids=ids, attention_mask=mask, use_cache=False).logits.sum().backward()

    return step
