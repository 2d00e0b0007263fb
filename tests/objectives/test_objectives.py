"""Distances and KL against plain formulas."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from es2_lightning.objectives.kl import KL_POSITIONS, kl_per_prompt, kl_position_mask
from es2_lightning.objectives.separation import (
    mean_distance_within,
    mean_norm,
    mean_pairwise_distance,
)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_distance_is_the_plain_mean_also_with_a_large_activation() -> None:
    a, b = random(30, 16), random(40, 16)
    a[:, 0] += 1e4
    b[:, 0] += 1e4
    plain = sum(float((x.double() - y.double()).norm()) for x in a for y in b) / (30 * 40)
    assert float(mean_pairwise_distance(a, b)) == pytest.approx(plain, rel=1e-6)


def test_distance_gradient_is_finite_at_zero_and_of_unit_length_elsewhere() -> None:
    a = torch.ones(2, 4, requires_grad=True)
    mean_pairwise_distance(a, torch.ones(3, 4)).backward()
    assert a.grad is not None and torch.equal(a.grad, torch.zeros(2, 4))
    one = random(1, 8).requires_grad_()
    mean_pairwise_distance(one, torch.zeros(1, 8)).backward()
    assert one.grad is not None
    torch.testing.assert_close(one.grad, one.detach() / one.detach().norm())


def test_half_precision_states_are_compared_in_float32() -> None:
    a, b = random(5, 64).bfloat16(), random(6, 64).bfloat16()
    distance = mean_pairwise_distance(a, b)
    assert distance.dtype == torch.float32
    assert float(distance) == pytest.approx(float(mean_pairwise_distance(a.double(), b.double())))
    assert mean_norm(a).dtype == torch.float32


def test_distances_within_and_norms() -> None:
    states = random(7, 16)
    pairs = [float((x - y).norm()) for x, y in itertools.combinations(states, 2)]
    assert float(mean_distance_within(states)) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert float(mean_distance_within(states[:1])) == 0
    norms = [float(x.norm()) for x in states]
    assert float(mean_norm(states)) == pytest.approx(sum(norms) / 7, rel=1e-5)


def test_kl_is_the_mean_over_each_prompts_positions() -> None:
    base, tuned = random(2, 4, 7), random(4, 2, 7).reshape(2, 4, 7)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    got = kl_per_prompt(base, tuned, mask)
    for row in range(2):
        chosen = mask[row]
        want = F.kl_div(
            tuned[row][chosen].log_softmax(-1),
            base[row][chosen].log_softmax(-1),
            log_target=True,
            reduction="none",
        ).sum(-1)
        torch.testing.assert_close(got[row], want.mean())
    assert float(kl_per_prompt(base, base, mask).abs().max()) == 0
    assert float(kl_per_prompt(base, tuned, torch.zeros(2, 4).bool()).abs().max()) == 0


def test_kl_is_of_the_base_from_the_tuned_and_padding_never_counts() -> None:
    base, tuned = torch.zeros(1, 2, 2), torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    p = torch.tensor([2.0, 0.0]).softmax(-1)
    wanted = float((0.5 * (0.5 / p).log()).sum())
    assert float(kl_per_prompt(base, tuned, mask)) == pytest.approx(wanted, rel=1e-6)
    tuned[0, 1] = float("nan")  # what stands on padding
    tuned.requires_grad_()
    kl_per_prompt(base, tuned, mask).sum().backward()
    assert tuned.grad is not None and float(tuned.grad[0, 1].abs().sum()) == 0


def test_kl_positions() -> None:
    attention = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    response = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    last = torch.tensor([1, 1])
    masks = {
        name: kl_position_mask(attention, response, last, name).int().tolist()
        for name in KL_POSITIONS
    }
    assert masks["all"] == attention.tolist()
    assert masks["last"] == [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert masks["response"] == [[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
