"""STL and circuit breakers against their definitions written out plainly, row by row in float64."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from es2_lightning.errors import UserError
from es2_lightning.training.settings import ScheduleSettings, StepSettings
from es2_lightning.training.sharding import ShardedStrategy

from .test_parity import plain_model
from .test_ranks import half, on_two
from .tiny_methods import CircuitBreakersRun, STLRun
from .tiny_runs import Record, TinyRun, every_step, relative_error, trainable

STEPS = 3
TOLERANCE = 2e-6


def tokens(run: TinyRun, prompt: str, response: str) -> tuple[list[int], int]:
    """All ids, and how many are the prompt's."""
    assert run.chat_model is not None
    tokenizer = run.chat_model.tokenizer
    turns = [{"role": "user", "content": prompt}]
    head = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    turns.append({"role": "assistant", "content": response})
    return tokenizer.apply_chat_template(turns)["input_ids"], len(head)


def plain_stl(run: STLRun, models: tuple[Any, Any], numbers: Any, _progress: float) -> Tensor:
    losses = []
    train = run.splits.train
    for prompt in (
        *(train.harmless[i] for i in numbers[0]),
        *(train.harmful[i] for i in numbers[1]),
    ):
        response = prompt.refusal if prompt.harmful else prompt.response
        assert response is not None
        ids, first = tokens(run, prompt.text, response)
        logits = models[0](input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        losses += [
            F.cross_entropy(logits[t - 1], torch.tensor(ids[t])) for t in range(first, len(ids))
        ]
    return torch.stack(losses).mean()


def plain_circuit_breakers(
    run: CircuitBreakersRun, models: tuple[Any, Any], numbers: Any, progress: float
) -> Tensor:
    def states(model: Any, ids: list[int]) -> tuple[Tensor, ...]:
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        return tuple(h[0] for h in out.hidden_states)

    train, reroute, retain = run.splits.train, [], []
    harmful = [train.harmful[i] for i in numbers[1]]
    for prompt in (*(train.harmless[i] for i in numbers[0]), *harmful):
        response = prompt.refusal if prompt.harmful else prompt.response
        assert response is not None
        ids, _ = tokens(run, prompt.text, response)
        tuned, base = (states(model, ids) for model in models)
        for t in range(len(ids)):
            by_layer = []
            for h, g in zip(tuned[1:], base[1:], strict=True):
                away = (h[t] - g[t].detach()).norm()
                by_layer.append(away * run.own.get("retention_weight", 1.0))
            retain.append(torch.stack(by_layer).mean())
    for prompt in harmful:
        assert prompt.response is not None
        ids, first = tokens(run, prompt.text, prompt.response)
        tuned, base = (states(model, ids) for model in models)
        for t in range(first if run.own.get("positions") == "response" else 0, len(ids)):
            for layer in run.layers:
                cosine = F.cosine_similarity(tuned[layer][t], base[layer][t].detach(), dim=0)
                reroute.append(cosine.clamp(min=0))
    alpha = run.own.get("alpha", 5.0)
    return (
        alpha * (1 - progress / 2) * torch.stack(reroute).mean()
        + alpha * progress / 2 * torch.stack(retain).mean()
    )


def assert_parity(run: Any, plain: Any, accumulate: int = 1) -> None:
    model, names = plain_model(run)
    models = (model.double().train(), run.base.double().eval())
    optimizer = run.optimizer(list(names.values()))
    batches = run.data.train_dataloader()
    losses: list[float] = []
    parameters = []
    number = 0
    for step in range(STEPS):
        optimizer.zero_grad()
        # The last step of an epoch takes the batches that are left.
        size = min(accumulate, len(batches) - number % len(batches))
        for _ in range(size):
            share = plain(run, models, batches.indices(number), step / STEPS) / size
            share.backward()
            losses.append(float(share.detach()))
            number += 1
        optimizer.step()
        parameters.append({n: p.detach().clone() for n, p in names.items()})
    record = Record()
    run.fit(record, accumulate_grad_batches=accumulate)
    assert record.losses == pytest.approx(losses, rel=TOLERANCE)
    for got, want in zip(record.parameters, parameters, strict=True):
        assert relative_error(got, want) <= TOLERANCE
    assert run.moved() > 1e-3
    assert [(reason, steps) for _, reason, steps in run.ends] == [("budget", STEPS)]
    assert run.module.schedule is not None and run.module.schedule.ends[0].kl is None


def settings(**values: Any) -> dict[str, Any]:
    schedule = ScheduleSettings(max_steps=STEPS)
    return {"reference": "adapter", "schedule": schedule, **values}


SMALL_PIECES = {"step": StepSettings(micro_batch=2, kl_chunk=3)}


@pytest.mark.parametrize("values", [{}, SMALL_PIECES, {"mode": "full", "reference": "copy"}])
def test_stl(values: dict[str, Any]) -> None:
    assert_parity(STLRun(**settings(**values)), plain_stl)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**SMALL_PIECES, "packing": "off"},
        {"reference": "copy", "own": {"alpha": 2.0, "retention_weight": 0.3}},
        {"own": {"positions": "response"}, "layers": (2, 4)},
    ],
)
def test_circuit_breakers(values: dict[str, Any]) -> None:
    assert_parity(CircuitBreakersRun(**settings(**values)), plain_circuit_breakers)


def test_accumulated_steps() -> None:
    run = CircuitBreakersRun(**settings(harmful_per_batch=3))
    assert_parity(run, plain_circuit_breakers, accumulate=2)


@pytest.mark.parametrize("method", [STLRun, CircuitBreakersRun])
def test_a_resumed_run_ends_where_one_that_was_never_stopped_ends(
    tmp_path: Path, method: type[STLRun]
) -> None:
    torch.manual_seed(3)
    whole, record = method(**settings(dropout=0.1)), Record()
    whole.fit(record, every_step(tmp_path))
    torch.manual_seed(4)
    resumed, rest = method(**settings(dropout=0.1)), Record()
    resumed.fit(rest, ckpt_path=str(tmp_path / "2.ckpt"))
    assert rest.losses == record.losses[2:]
    final = trainable(whole.module)
    assert all(torch.equal(p, final[n]) for n, p in trainable(resumed.module).items())


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    STLRun(**settings()).fit(every_step(tmp_path))
    for other in (TinyRun, CircuitBreakersRun):
        with pytest.raises(UserError, match=r"trained by STLModule.*method=…"):
            other(**settings()).fit(ckpt_path=str(tmp_path / "3.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, strategy: str) -> None:
    shared = {
        "schedule": {"max_steps": STEPS},
        "reference": "adapter",
        "harmless_per_batch": 6,
        "harmful_per_batch": 4,
    }
    both = [shared | {"method": method} for method in ("stl", "circuit_breakers")]
    from .rank_run import run

    ones = [run(what | {"strategy": "auto", "devices": 1}) for what in both]
    twos = on_two(tmp_path, *(half(what) | {"strategy": strategy} for what in both))
    for one, two in zip(ones, twos, strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=2e-5)
        assert relative_error(two["gradients"][0], one["gradients"][0]) <= 1e-6
        assert relative_error(two["parameters"], one["parameters"]) <= 1e-5


def test_a_sharded_copy_cannot_be_read_layer_by_layer() -> None:
    run = CircuitBreakersRun(**settings(mode="full", reference="copy"))
    run.module.trainer = SimpleNamespace(strategy=ShardedStrategy())  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"model\.mode=full and trainer=fsdp"):
        run.module.configure_model()
