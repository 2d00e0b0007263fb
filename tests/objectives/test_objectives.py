"""Distances and KL against plain formulas."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from es2_lightning.objectives.kl import KL_POSITIONS, kl_at_positions, kl_positions, mean_by_row
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


def test_kl_is_the_mean_over_each_rows_positions() -> None:
    base, tuned = random(4, 7), random(7, 4).reshape(4, 7)
    row, counts = torch.tensor([0, 0, 0, 2]), torch.tensor([3, 1, 1])
    got = mean_by_row(kl_at_positions(base, tuned), row, counts)
    for number in (0, 2):
        want = F.kl_div(
            tuned[row == number].log_softmax(-1),
            base[row == number].log_softmax(-1),
            log_target=True,
            reduction="none",
        ).sum(-1)
        torch.testing.assert_close(got[number], want.mean())
    assert float(got[1]) == 0, "a row without positions"
    assert float(kl_at_positions(base, base).abs().max()) == 0


def test_kl_is_of_the_base_from_the_tuned() -> None:
    base, tuned = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
    p = torch.tensor([2.0, 0.0]).softmax(-1)
    wanted = float((0.5 * (0.5 / p).log()).sum())
    assert float(kl_at_positions(base, tuned)) == pytest.approx(wanted, rel=1e-6)


def test_kl_positions() -> None:
    found = {name: list(kl_positions(2, 2, name)) for name in KL_POSITIONS}
    assert found == {"all": [0, 1, 2, 3], "last": [1], "response": [1, 2]}
    without = {name: list(kl_positions(2, 0, name)) for name in KL_POSITIONS}
    assert without == {"all": [0, 1], "last": [1], "response": [1]}
