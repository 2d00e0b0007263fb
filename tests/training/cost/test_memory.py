"""Bytes against what can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, relu
from torch.utils.checkpoint import checkpoint

from es2_lightning.training.cost.memory import ByteCount, count_bytes
from tests.tiny_models import tiny_chat_model

on_both = pytest.mark.parametrize("device", ["meta", "cpu"])
N, D, F = 10, 3, 5


@on_both
def test_a_chain_of_two_linear_maps(device: str) -> None:
    x = torch.zeros(N, D, device=device)
    first = torch.zeros(F, D, device=device, requires_grad=True)
    second = torch.zeros(D, F, device=device, requires_grad=True)

    def forward() -> Tensor:
        return linear(relu(linear(x, first)), second)

    # Before relu and after it; then the first is forgotten, the second is saved.
    assert count_bytes(forward) == ByteCount(4 * 2 * N * F, 0, 4 * (2 * N * F + N * D))

    def step() -> None:
        forward().sum().backward()

    # A scalar and its gradient 1 stand beside all of it. Saved: relu's output. The gradient of
    # `second` is there when that of relu's output and then that of its input are computed.
    peak = 4 * (2 + N * F + D * F + 2 * N * F)
    kept = 4 * (D * F + F * D)
    counted = count_bytes(step)
    assert (counted.peak, counted.kept) == (peak, kept)


@on_both
def test_what_is_freed_counts_no_longer(device: str) -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            torch.zeros(100, device=device).add(1)

    assert count_bytes(one_after_the_other) == ByteCount(2 * 400, 0, 10 * 400)


@on_both
def test_views_and_changes_in_place_take_nothing(device: str) -> None:
    before = torch.zeros(10, 10, device=device)

    def function() -> Tensor:
        made = torch.zeros(10, 10, device=device)
        made.view(100)[:50].add_(1)
        before.t()[0].mul_(2)
        return made.t().expand(3, 10, 10)

    assert count_bytes(function) == ByteCount(400, 0, 400)


@on_both
def test_what_autograd_saved_is_alive(device: str) -> None:
    weight = torch.zeros(100, device=device, requires_grad=True)

    def keeps_nothing() -> Tensor:
        return weight.add(1).add(1).add(1)

    def keeps_its_outputs() -> Tensor:
        return weight.exp().exp().exp()

    assert count_bytes(keeps_nothing).peak == 2 * 400
    assert count_bytes(keeps_its_outputs).peak == 3 * 400


@on_both
def test_checkpointing_keeps_less_and_computes_more(device: str) -> None:
    weight = torch.zeros(100, device=device, requires_grad=True)

    def block(x: Tensor) -> Tensor:
        for _ in range(10):
            x = x.exp()
        return x

    def plain() -> None:
        block(block(block(weight))).sum().backward()

    def checkpointed() -> None:
        x = weight
        for _ in range(3):
            x = checkpoint(block, x, use_reentrant=False)
        x.sum().backward()

    assert count_bytes(plain).peak == pytest.approx(31 * 400, abs=2 * 400)
    assert count_bytes(checkpointed).peak == pytest.approx(13 * 400, abs=3 * 400)
    assert count_bytes(checkpointed).allocated > count_bytes(plain).allocated


def test_storages_of_another_device_can_be_left_out() -> None:
    def function() -> tuple[Tensor, Tensor]:
        return torch.zeros(10), torch.zeros(20, device="meta")

    assert count_bytes(function).peak == 120
    assert count_bytes(function, device="meta").peak == 80
    assert count_bytes(function, device="cpu").peak == 40


def test_a_model_takes_as_much_on_meta_as_on_a_cpu() -> None:
    def peak(device: str) -> int:
        model = tiny_chat_model().model.to(device)
        ids = torch.zeros(3, 9, dtype=torch.long, device=device)
        mask = torch.ones(3, 1, 9, 9, dtype=torch.bool, device=device).tril()
        return count_bytes(
            lambda: (
                model(input_ids=ids, attention_mask=mask, use_cache=False).logits.sum().backward()
            )
        ).peak

    assert peak("meta") == peak("cpu")
