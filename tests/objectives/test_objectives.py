"""Distances and KL against plain formulas."""

import torch
import torch.nn.functional as F

from es2_lightning.objectives.kl import kl_per_prompt, kl_position_mask
from es2_lightning.objectives.separation import mean_pairwise_distance


def test_distance_is_the_plain_mean_also_with_a_large_activation():
    torch.manual_seed(0)
    a, b = torch.randn(30, 16), torch.randn(40, 16)
    a[:, 0] += 1e4
    b[:, 0] += 1e4
    plain = sum(float((x.double() - y.double()).norm()) for x in a for y in b) / (30 * 40)
    assert abs(float(mean_pairwise_distance(a, b)) - plain) <= 1e-6 * plain


def test_distance_gradient_is_finite_at_zero():
    a = torch.ones(2, 4, requires_grad=True)
    mean_pairwise_distance(a, torch.ones(3, 4)).backward()
    assert torch.isfinite(a.grad).all()


def test_kl_is_the_mean_over_each_prompts_positions():
    torch.manual_seed(0)
    base, tuned = torch.randn(2, 4, 7), torch.randn(2, 4, 7)
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


def test_kl_positions():
    attention = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    response = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    last = torch.tensor([1, 1])
    masks = {
        name: kl_position_mask(attention, response, last, name).int().tolist()
        for name in ("all", "last", "response")
    }
    assert masks["all"] == attention.tolist()
    assert masks["last"] == [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert masks["response"] == [[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
