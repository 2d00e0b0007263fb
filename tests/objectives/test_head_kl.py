"""KL from final hidden states against plain float64 code, and what it computes and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from shutil import which
from typing import Any
from weakref import finalize

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from es2_lightning.backbone import head_products
from es2_lightning.backbone.head_statistics import HeadStatistics, head_statistics
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.errors import UserError
from es2_lightning.objectives.head_kl import (
    kl_of_logit_functions,
    kl_of_states,
    kl_of_statistics,
)

P, V, D = 10, 97, 16


def random(*shape: int, seed: int = 0, scale: float = 1.0, **kind: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(**kind)


def states(*, seed: int = 1, apart: float = 0.3, **kind: Any) -> tuple[Tensor, Tensor]:
    """The tuned model's, with gradients, and the base's."""
    base = random(P, D, seed=seed)
    return (base + random(P, D, seed=seed + 1, scale=apart)).to(**kind).requires_grad_(), base.to(
        **kind
    )


HEADS = {
    "plain": LinearHead(random(V, D)),
    "bias": LinearHead(random(V, D), random(V, seed=7)),
    "scale": LinearHead(random(V, D), random(V, seed=7), scale=0.25),
    "cap": LinearHead(random(V, D), soft_cap=3.0),
    "all": LinearHead(random(V, D), random(V, seed=7), soft_cap=5.0, scale=0.5),
}
LINEAR = ("plain", "bias", "scale")


def to(head: LinearHead, dtype: torch.dtype) -> LinearHead:
    bias = None if head.bias_V is None else head.bias_V.to(dtype)
    return replace(head, weight_VD=head.weight_VD.to(dtype), bias_V=bias)


def plain(tuned: Tensor, base: Tensor, head: LinearHead, base_head: LinearHead | None = None):
    """The values and d(Σ k² / 2)/dh of the definition, in float64."""
    tuned = tuned.detach().double().requires_grad_()
    head = to(head, torch.float64)
    base_head = head if base_head is None else to(base_head, torch.float64)
    p = base_head.logits(base.double()).log_softmax(-1)
    k = (p.exp() * (p - head.logits(tuned).log_softmax(-1))).sum(-1)
    (gradient,) = torch.autograd.grad(k.square().sum() / 2, tuned)
    return k.detach(), gradient


def gradient_of(k: Tensor, tuned: Tensor) -> Tensor:
    """Of Σ k² / 2: each position has another upstream gradient."""
    (gradient,) = torch.autograd.grad(k.square().sum() / 2, tuned)
    return gradient


def relative(got: Tensor, wanted: Tensor) -> float:
    difference = got.detach().double() - wanted.detach()
    return float(difference.norm() / wanted.detach().norm())


@pytest.mark.parametrize("chunk", [1, 3, 256, None])
@pytest.mark.parametrize("name", HEADS)
def test_values_and_gradients_are_the_definitions(name: str, chunk: int | None) -> None:
    tuned, base = states(dtype=torch.float64)
    k = kl_of_states(tuned, base, tuned_head=HEADS[name], chunk=chunk)
    wanted, gradient = plain(tuned, base, HEADS[name])
    assert k.dtype == torch.float64
    torch.testing.assert_close(k, wanted, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient_of(k, tuned), gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_gradcheck(name: str) -> None:
    tuned, base = states(dtype=torch.float64)
    head = to(HEADS[name], torch.float64)
    assert torch.autograd.gradcheck(
        lambda h: kl_of_states(h, base, tuned_head=head, chunk=3), tuned
    )
    if name in LINEAR:
        statistics = head_statistics(base, head, chunk=4)
        assert torch.autograd.gradcheck(
            lambda h: kl_of_statistics(h, statistics, head, chunk=3), tuned
        )


@pytest.mark.parametrize("apart", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("name", HEADS)
def test_float32_loses_no_digits_however_small_the_kl(name: str, apart: float) -> None:
    tuned, base = states(apart=apart)
    k = kl_of_states(tuned, base, tuned_head=HEADS[name], chunk=3)
    wanted, gradient = plain(tuned, base, HEADS[name])
    assert k.dtype == torch.float32
    # The square of the rounding of a logsumexp is all that does not shrink with the values.
    assert float((k - wanted).norm().detach()) < 1e-6 * float(wanted.norm()) + 1e-13
    assert relative(gradient_of(k, tuned), gradient) < 2e-6


@pytest.mark.parametrize("name", HEADS)
def test_bf16_states_and_weights_leave_no_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_products, "CAST_ENTRIES", 20 * D)  # several blocks of the weight
    tuned, base = states(apart=0.05, dtype=torch.bfloat16)
    head = to(HEADS[name], torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        k = kl_of_states(tuned, base, tuned_head=head, chunk=3)
    wanted, gradient = plain(tuned, base, head)
    assert k.dtype == torch.float32 and relative(k, wanted) < 1e-5
    # The gradient itself is handed back in bf16.
    assert relative(gradient_of(k, tuned), gradient) < 3e-3
    at_once = kl_of_states(tuned, base, tuned_head=head, chunk=None)
    assert relative(at_once, wanted) < 1e-3


@pytest.fixture
def products_as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """bf16 matrices are multiplied as they are, and added up in float32."""
    monkeypatch.setattr(head_products, "ADDS_BF16_IN_FLOAT32", {"cpu"})
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("mm.dtype", lambda a, b, dtype: torch.mm(a.to(dtype), b.to(dtype)), "CPU")
        yield


@pytest.mark.usefixtures("products_as_on_cuda")
@pytest.mark.parametrize("name", HEADS)
def test_bf16_products_as_on_cuda(name: str) -> None:
    tuned, base = states(apart=0.05, dtype=torch.bfloat16)
    head = to(HEADS[name], torch.bfloat16)
    wanted, gradient = plain(tuned, base, head)
    k = kl_of_states(tuned, base, tuned_head=head, chunk=3)
    assert float((k - wanted).detach().abs().max()) < 1e-6
    assert relative(gradient_of(k, tuned), gradient) < 4e-3
    k = kl_of_states(tuned, tuned.detach(), tuned_head=head, chunk=3)
    assert int(k.count_nonzero()) == int(gradient_of(k, tuned).count_nonzero()) == 0
    if name in LINEAR:
        k = kl_of_statistics(tuned, head_statistics(base, head, chunk=3), head, chunk=3)
        assert float((k - wanted).detach().abs().max()) < 5e-6
        assert relative(gradient_of(k, tuned), gradient) < 4e-3


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", ["plain", "all"])
def test_compiled(name: str) -> None:
    for apart in (0.0, 1e-2, 1.0):
        tuned, base = states(apart=apart)
        k = kl_of_states(tuned, base, tuned_head=HEADS[name], chunk=4, compiled=True)
        wanted, gradient = plain(tuned, base, HEADS[name])
        if apart:
            assert relative(k, wanted) < 1e-6
            assert relative(gradient_of(k, tuned), gradient) < 2e-6
        else:
            assert int(k.count_nonzero()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_equality_is_exactly_zero(name: str, dtype: torch.dtype) -> None:
    _, base = states(dtype=dtype)
    tuned = base.clone().requires_grad_()
    k = kl_of_states(tuned, base, tuned_head=to(HEADS[name], dtype), chunk=3)
    k.sum().backward()
    assert tuned.grad is not None
    assert int(k.count_nonzero()) == int(tuned.grad.count_nonzero()) == 0


@pytest.mark.usefixtures("products_as_on_cuda")
def test_a_base_of_another_dtype_is_not_rounded() -> None:
    tuned, base = states(apart=0.05)
    head, rounded = to(HEADS["bias"], torch.bfloat16), tuned.detach().bfloat16().requires_grad_()
    k = kl_of_states(rounded, base, tuned_head=head, chunk=3)
    wanted, gradient = plain(rounded, base, head)
    assert relative(k, wanted) < 1e-5 and relative(gradient_of(k, rounded), gradient) < 4e-3
    k = kl_of_states(tuned, base.bfloat16(), tuned_head=head, chunk=3)
    wanted, gradient = plain(tuned, base.bfloat16(), head)
    assert relative(k, wanted) < 1e-5 and relative(gradient_of(k, tuned), gradient) < 1e-5


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_extreme_logits(apart: float) -> None:
    head = LinearHead(random(V, D, scale=1e3), random(V, seed=7))
    tuned, base = states(apart=apart)
    k = kl_of_states(tuned, base, tuned_head=head, chunk=3)
    wanted, gradient = plain(tuned, base, head)
    assert float(head.logits(base).abs().max()) > 1e4 and k.isfinite().all()
    torch.testing.assert_close(k.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient_of(k, tuned).double(), gradient, rtol=1e-4, atol=1e-3)


def test_states_that_are_not_contiguous() -> None:
    tuned, base = states()
    wide = torch.cat([tuned, tuned], 1).detach().requires_grad_()
    head = replace(HEADS["bias"], weight_VD=HEADS["bias"].weight_VD.T.contiguous().T)
    k = kl_of_states(wide[:, :D], base.T.contiguous().T, tuned_head=head, chunk=3)
    (got,) = torch.autograd.grad(k.square().sum() / 2, wide)
    wanted, gradient = plain(tuned, base, HEADS["bias"])
    assert relative(k, wanted) < 1e-6 and relative(got[:, :D], gradient) < 2e-6
    assert int(got[:, D:].count_nonzero()) == 0


@pytest.mark.parametrize("chunk", [3, None])
def test_no_positions_still_hang_on_the_states(chunk: int | None) -> None:
    tuned, base = torch.zeros(0, D, requires_grad=True), torch.zeros(0, D)
    head = HEADS["all"]
    of_functions = kl_of_logit_functions(
        tuned, base, tuned_logits=head.logits, base_logits=head.logits, chunk=chunk
    )
    statistics = head_statistics(base, HEADS["bias"], chunk=chunk)
    for k in (
        kl_of_states(tuned, base, tuned_head=head, chunk=chunk),
        kl_of_statistics(tuned, statistics, HEADS["bias"], chunk=chunk),
        of_functions,
    ):
        assert k.shape == (0,)
        (gradient,) = torch.autograd.grad(k.sum(), tuned)
        assert gradient.shape == (0, D)


def test_backward_twice_and_a_second_derivative() -> None:
    tuned, base = states()
    k = kl_of_states(tuned, base, tuned_head=HEADS["bias"], chunk=3)
    weights = random(P, seed=5)
    first, second = (
        torch.autograd.grad((k * w).sum(), tuned, retain_graph=True)[0]
        for w in (weights, 2 * weights)
    )
    torch.testing.assert_close(second, 2 * first)
    (once,) = torch.autograd.grad(k.square().sum(), tuned, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()


@pytest.mark.parametrize("chunk", [3, None])
def test_another_head_of_the_base_gets_no_gradient(chunk: int | None) -> None:
    tuned, base = states()
    other = LinearHead(random(V, D, seed=3).requires_grad_(), random(V, seed=4), scale=0.25)
    k = kl_of_states(tuned, base, tuned_head=HEADS["scale"], base_head=other, chunk=chunk)
    wanted, gradient = plain(tuned, base, HEADS["scale"], other)
    assert relative(k, wanted) < 1e-6 and relative(gradient_of(k, tuned), gradient) < 1e-5
    assert other.weight_VD.grad is None


@pytest.mark.parametrize("chunk", [1, 4, 256])
@pytest.mark.parametrize("tied", [False, True])
def test_a_head_that_trains(chunk: int, tied: bool) -> None:
    """Tied: the hidden states depend on the head's weight too."""
    tokens = torch.arange(P) * 7

    def loss(chunk: int | None, dtype: torch.dtype) -> tuple[float, list[Tensor]]:
        weight = random(V, D, dtype=dtype).requires_grad_()
        bias, mix = random(V, seed=7, dtype=dtype).requires_grad_(), random(D, D, dtype=dtype)
        hidden = random(P, D, seed=8, dtype=dtype).requires_grad_()
        used = torch.tanh(weight[tokens] @ mix + hidden) if tied else hidden
        k = kl_of_states(
            used,
            random(P, D, seed=9, dtype=dtype),
            tuned_head=LinearHead(weight, bias, 5.0, 0.5),
            base_head=LinearHead(random(V, D, dtype=dtype), None, 5.0, 0.5),
            chunk=chunk,
        )
        total = (k * random(P, seed=5, dtype=dtype)).sum()
        return float(total.detach()), list(torch.autograd.grad(total, [weight, bias, hidden]))

    value, gradients = loss(None, torch.float64)
    for dtype, accuracy in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        got, found = loss(chunk, dtype)
        assert got == pytest.approx(value, rel=10 * accuracy)
        for one, wanted in zip(found, gradients, strict=True):
            assert relative(one, wanted) < accuracy


def test_logit_functions_train_what_is_in_them() -> None:
    tuned, base = states()
    down, up = random(D, 2, seed=5).requires_grad_(), random(2, V, seed=6).requires_grad_()
    weight = random(V, D)

    def adapted(h: Tensor) -> Tensor:
        return h @ weight.T + h @ down @ up

    results = []
    for chunk in (None, 3):
        k = kl_of_logit_functions(
            tuned, base, tuned_logits=adapted, base_logits=lambda h: h @ weight.T, chunk=chunk
        )
        results.append([k, *torch.autograd.grad(k.square().sum(), [tuned, down, up])])
    wanted, _ = plain(tuned, base, LinearHead(weight + (down @ up).T.detach()), LinearHead(weight))
    assert relative(results[0][0], wanted) < 1e-6
    for one, other in zip(*results, strict=True):
        assert relative(one, other) < 1e-6


@pytest.mark.parametrize("apart", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("name", LINEAR)
def test_statistics_give_the_same_up_to_rounding(name: str, apart: float) -> None:
    tuned, base = states(apart=apart)
    order = torch.randperm(P)
    parts = [head_statistics(h, HEADS[name], chunk=3) for h in base[order].split(4)]
    statistics = HeadStatistics.cat(parts).select(order.argsort())
    assert len(statistics) == P and statistics.expected_weight_PD.dtype == torch.float32
    k = kl_of_statistics(tuned, statistics, HEADS[name], chunk=3)
    wanted, _ = plain(tuned, base, HEADS[name])
    assert float((k - wanted).detach().abs().max()) < 5e-6
    (got,) = torch.autograd.grad(k.sum(), tuned)
    hidden = kl_of_states(tuned, base, tuned_head=HEADS[name], chunk=3)
    (gradient,) = torch.autograd.grad(hidden.sum(), tuned)
    torch.testing.assert_close(got, gradient, rtol=1e-5, atol=2e-6)


def test_statistics_are_refused_where_they_say_too_little() -> None:
    tuned, base = states()
    statistics = head_statistics(base, HEADS["bias"], chunk=3)
    training = replace(HEADS["bias"], bias_V=random(V).requires_grad_())
    for head, words in ((HEADS["cap"], "soft-caps its logits"), (training, "trains")):
        with pytest.raises(UserError, match=f"{words}.*hold=hidden_states"):
            head_statistics(base, head, chunk=3)
        with pytest.raises(UserError, match=words):
            kl_of_statistics(tuned, statistics, head, chunk=3)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_with_the_head(device: str, dtype: torch.dtype) -> None:
    tuned, base = (s.detach().to(device) for s in states(dtype=dtype))
    weight = HEADS["plain"].weight_VD.to(device, dtype)
    head = LinearHead(weight)
    statistics = head_statistics(base, head, chunk=3)
    one = 2 * P * V * D

    def flops(kind: str, *, gradient: bool) -> float:
        h = tuned.clone().requires_grad_(gradient)
        with FlopCounterMode(display=False) as counter:
            if kind == "states":
                k = kl_of_states(h, base, tuned_head=head, chunk=3)
            else:
                k = kl_of_statistics(h, statistics, head, chunk=3)
            if gradient:
                k.sum().backward()
        assert k.device.type == device
        return counter.get_total_flops() / one

    assert flops("states", gradient=True) == 3 and flops("states", gradient=False) == 2
    assert flops("statistics", gradient=True) == 2 and flops("statistics", gradient=False) == 1
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        kl_of_states(tuned.requires_grad_(), base, tuned_head=head, chunk=3)
    assert counter.get_total_flops() == 2 * one


class PeakBytes(TorchDispatchMode):
    """The most bytes that all tensors made inside held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):
                self._known.add(given.untyped_storage()._cdata)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        self._known.discard(key)


@pytest.mark.parametrize("kind", ["states", "statistics"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "bfloat16 as on CUDA"])
def test_bytes_above_inputs_do_not_grow_with_positions(
    kind: str, dtype: torch.dtype | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the shape of Llama-3-8B's head: below three chunks of logits beside the gradient."""
    width, vocabulary, chunk = 4096, 128256, 256
    if isinstance(dtype, str):
        monkeypatch.setattr(head_products, "ADDS_BF16_IN_FLOAT32", {"meta"})
        dtype = torch.bfloat16
    head = LinearHead(torch.empty(vocabulary, width, device="meta", dtype=dtype))
    peaks = []
    for positions in (1024, 4096):
        base = torch.empty(positions, width, device="meta", dtype=dtype)
        tuned = torch.empty_like(base).requires_grad_()
        statistics = head_statistics(base, head, chunk=chunk) if kind == "statistics" else None
        with PeakBytes() as bytes_:
            if statistics is None:
                k = kl_of_states(tuned, base, tuned_head=head, chunk=chunk)
            else:
                k = kl_of_statistics(tuned, statistics, head, chunk=chunk)
        assert k.requires_grad
        gradient = 4 * positions * width
        assert bytes_.now < gradient + 100 * positions
        peaks.append(bytes_.peak - gradient)
    assert peaks[1] - peaks[0] < 100 * 4096
    assert peaks[1] < 3 * chunk * vocabulary * 4
