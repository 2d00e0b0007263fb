"""What the KL alone costs at the head of Llama-3-8B, and how far it is from float64.

python -m pytest -m gpu -s tests/gpu/test_kl.py

The same code runs on a tiny shape where there is no GPU, so that it is known to work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from es2_lightning.backbone.head_statistics import head_statistics
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.objectives.head_kl import kl_of_states, kl_of_statistics

CHUNK = 256
"""As by default; larger ones may be faster, for more memory."""
SAMPLE = 64
"""Positions that are compared with float64."""


@dataclass(frozen=True)
class Shape:
    """Of the hidden states and the head."""

    positions: int
    width: int = 4096
    vocabulary: int = 128256

    def __str__(self) -> str:
        return f"{self.positions} positions, D = {self.width}, V = {self.vocabulary}"


TINY = Shape(300, 32, 500)
LLAMA_3_8B = (Shape(8192), Shape(1024))


def kl_function(
    kind: str, base: Tensor, head: LinearHead, *, chunk: int
) -> Callable[[Tensor], Tensor]:
    """What makes the values, (P,), of the tuned model's hidden states."""
    if kind == "statistics":
        known = head_statistics(base, head, chunk=chunk)
        return lambda tuned: kl_of_statistics(tuned, known, head, chunk=chunk)
    return lambda tuned: kl_of_states(
        tuned, base, tuned_head=head, chunk=chunk, compiled=kind == "compiled"
    )


def milliseconds(run: Callable[[], object], *, repeats: int) -> float:
    """The median of several runs."""
    times = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        else:
            began = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that one run holds above what is held before it; 0 without a GPU."""
    if not torch.cuda.is_available():
        run()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def definition(tuned: Tensor, base: Tensor, head: LinearHead) -> tuple[Tensor, Tensor]:
    """Values and gradients of their sum, in float64."""
    head = replace(head, weight_VD=head.weight_VD.double())
    tuned = tuned.detach().double().requires_grad_()
    log_p = head.logits(base.double()).log_softmax(-1)
    kl = (log_p.exp() * (log_p - head.logits(tuned).log_softmax(-1))).sum(-1)
    (gradient,) = torch.autograd.grad(kl.sum(), tuned)
    return kl.detach(), gradient


CASES = [
    *(pytest.param(TINY, kind, CHUNK, id=f"tiny-{kind}") for kind in ("states", "statistics")),
    *(
        pytest.param(
            shape, kind, chunk, id=f"{shape.positions}-{kind}-{chunk}", marks=pytest.mark.gpu
        )
        for shape in LLAMA_3_8B
        for kind in ("states", "compiled", "statistics")
        for chunk in (CHUNK, 4 * CHUNK)
    ),
]


@pytest.mark.parametrize(("shape", "kind", "chunk"), CASES)
def test_kl_alone(shape: Shape, kind: str, chunk: int) -> None:
    device = "cpu" if shape is TINY else "cuda"
    torch.manual_seed(0)
    # Logits as a trained model has them: a standard deviation of 2.5.
    weight = torch.randn(shape.vocabulary, shape.width, device=device) * shape.width**-0.5
    base = torch.randn(shape.positions, shape.width, device=device) * 2.5
    tuned = (base + 0.2 * torch.randn_like(base)).bfloat16().requires_grad_()
    base, head = base.bfloat16(), LinearHead(weight.bfloat16())
    del weight
    function = kl_function(kind, base, head, chunk=chunk)

    def step() -> Tensor:
        (gradient,) = torch.autograd.grad(function(tuned).sum(), tuned)
        return gradient

    step()  # compiles, where it does
    above = max(0, peak_bytes(step) - 4 * tuned.numel())
    took = milliseconds(step, repeats=3 if shape is TINY else 20)

    kl, gradient = function(tuned).detach(), step()
    sample = torch.linspace(0, shape.positions - 1, SAMPLE, device=device).long()
    wanted, wanted_gradient = definition(tuned[sample], base[sample], head)
    error = float((kl[sample] - wanted).abs().max())
    difference = gradient[sample].double() - wanted_gradient
    gradient_error = float(difference.norm() / wanted_gradient.norm())
    print(
        f"\n{kind}, {shape}, chunk {chunk}: {took:.2f} ms, {above / 1e9:.3f} GB above inputs and "
        f"gradient, mean KL {float(wanted.mean()):.4f}, error {error:.1e}, of the gradient "
        f"{gradient_error:.1e}"
    )
    assert float(wanted.mean()) > 1e-3
    assert error <= 1e-5 and gradient_error <= 4e-3
    assert chunk > CHUNK or above <= 0.5e9

    equal = base.clone().requires_grad_()
    kl = function(equal)
    (gradient,) = torch.autograd.grad(kl.sum(), equal)
    if kind == "statistics":
        assert float(kl.detach().abs().max()) <= 1e-5
    else:
        assert int(kl.count_nonzero()) == int(gradient.count_nonzero()) == 0
