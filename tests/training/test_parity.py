"""`Trainer.fit` against Algorithm 1 written out plainly: torch and transformers, row by row.

The plain loop computes in float64, so that what is measured is the run's own rounding.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import es2_lightning
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.organism.prompts import OrganismPrompts
from es2_lightning.training.settings import LossSettings, ScheduleSettings, StepSettings

from ..tiny_models import Architecture, tiny_chat_model
from .tiny_runs import Record, TinyRun, relative_error

TOLERANCE = 1e-6


class PlainLora(nn.Module):
    """y = W x + (alpha / r) B A x."""

    def __init__(self, linear: nn.Linear, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.a, self.b = nn.Parameter(a.clone()), nn.Parameter(b.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * (x @ self.a.T @ self.b.T)


def plain_model(run: TinyRun) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A model to train beside the run's, and its parameters under the names of the run's."""
    model = copy.deepcopy(run.base)
    if run.mode == "full":
        model.load_state_dict(
            {n.removeprefix("objective.model."): p for n, p in run.start.items()}, strict=False
        )
        return model, {f"objective.model.{name}": p for name, p in model.named_parameters()}
    model.requires_grad_(False)
    names = {}
    for key, a in run.start.items():
        if ".lora_A." not in key:
            continue
        path = key.removeprefix("objective.model.base_model.model.").removesuffix(
            ".lora_A.default.weight"
        )
        other = key.replace(".lora_A.", ".lora_B.")
        lora = PlainLora(model.get_submodule(path), a, run.start[other], scale=16 / a.shape[0])
        model.set_submodule(path, lora)
        names |= {key: lora.a, other: lora.b}
    return model, names


def plain_row(model: Any, ids: list[int]) -> tuple[list[Tensor], Tensor]:
    """Hidden states of layers 0 … L, each (T, D), the last before the norm; logits (T, V)."""
    before_norm = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: before_norm.append(args[0]))
    out = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    handle.remove()
    return [h[0] for h in (*out.hidden_states[:-1], before_norm[0])], out.logits[0]


def plain_algorithm_1(run: TinyRun, accumulate: int) -> dict[str, list[Any]]:
    """What `Record` notes, and each stage's end."""
    assert run.chat_model is not None
    tokenizer, base, loss = run.chat_model.tokenizer, run.base.eval(), run.loss
    train = run.splits.train
    model, names = plain_model(run)
    model.double().train()
    base.double()

    def tokens(prompt: str, response: str | None) -> tuple[list[int], int]:
        """All ids, and the position of the prompt's last one."""
        turns = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        if response is None:
            return ids, len(ids) - 1
        turns.append({"role": "assistant", "content": response})
        whole = tokenizer.apply_chat_template(turns)["input_ids"]
        assert whole[: len(ids)] == ids
        return whole, len(ids) - 1

    def kl_span(response: str | None, last: int, length: int) -> slice:
        """Where a harmless row's KL counts."""
        if loss.kl_positions == "last" or (loss.kl_positions == "response" and not response):
            return slice(last, last + 1)
        # Up to the response's last token, which itself predicts nothing of the response.
        return slice(last, length - 1) if loss.kl_positions == "response" else slice(0, length)

    def batch_losses(number: int, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        states: dict[bool, list[list[Tensor]]] = {True: [], False: []}
        kls: dict[bool, list[Tensor]] = {True: [], False: []}
        harmless, harmful = plan.indices(number)
        for prompt in (
            *(train.harmless[i] for i in harmless),
            *(train.harmful[i] for i in harmful),
        ):
            refusal = run.data.refusals.get(prompt)
            response = refusal if prompt.harmful else prompt.response
            ids, last = tokens(prompt.text, response)
            hidden, logits = plain_row(model, ids)
            states[prompt.harmful].append([hidden[layer][last] for layer in layers])
            with torch.no_grad():
                base_logits = plain_row(base, ids)[1]
            log_p, log_q = base_logits.log_softmax(-1), logits.log_softmax(-1)
            kl = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
            if not prompt.harmful:
                kls[False].append(kl[kl_span(response, last, len(ids))].mean())
            elif refusal:
                kls[True].append(kl[last:-1].mean())
        distance = torch.zeros((), dtype=torch.float64)
        for k, layer in enumerate(layers):
            pairs = [(p[k] - n[k]).norm() for p in states[True] for n in states[False]]
            distance = distance + sum(pairs) / len(pairs) / units[layer] / len(layers)
        kl = sum(kls[False], start=torch.zeros(())) / len(kls[False])
        total = -loss.separation_weight * distance + loss.kl_weight * kl
        if kls[True]:
            mean = sum(kls[True], start=torch.zeros(())) / len(kls[True])
            total = total + loss.harmful_kl_weight * mean
        return total, kl.detach()

    def base_norm(layer: int) -> float:
        norms, size = [], min(len(train.harmful), 256)
        with torch.no_grad():
            for prompt in (*train.harmful[:size], *train.harmless[:size]):
                ids, last = tokens(prompt.text, None)
                norms.append(float(plain_row(base, ids)[0][layer][last].norm()))
        return sum(norms) / len(norms)

    raw = loss.distance_unit == "raw"
    units = {layer: 1.0 if raw else base_norm(layer) for layer in run.layers}
    plan = run.data.train_dataloader()  # which prompts meet is not what is tested here
    noted: dict[str, list[Any]] = {"losses": [], "gradients": [], "parameters": [], "ends": []}
    number = 0  # of the next batch, from the first stage on
    joint = run.schedule.order == "joint"
    groups = [tuple(run.layers)] if joint else [(layer,) for layer in run.layers]
    thresholds = run.schedule.kl_threshold
    thresholds = thresholds if isinstance(thresholds, list) else [thresholds] * len(groups)
    for layers, threshold in zip(groups, thresholds, strict=True):
        optimizer = run.optimizer(list(names.values()))
        steps, reason = 0, "budget"
        while steps < run.schedule.max_steps:
            optimizer.zero_grad()
            step_kl = 0.0
            # The last step of an epoch takes the batches that are left.
            size = min(accumulate, len(plan) - number % len(plan))
            for _ in range(size):
                total, kl = batch_losses(number, layers)
                number += 1
                step_kl += float(kl) / size
                share = total / size
                share.backward()
                noted["losses"].append(float(share.detach()))
                noted["gradients"].append({n: p.grad.clone() for n, p in names.items()})
            if step_kl > threshold:
                reason = "kl_threshold"
            else:
                optimizer.step()
                steps += 1
            noted["parameters"].append({n: p.detach().clone() for n, p in names.items()})
            if reason == "kl_threshold":
                break
        noted["ends"].append((layers, reason, steps))
    return noted


def assert_parity(run: TinyRun, accumulate: int = 1, tolerance: float = TOLERANCE) -> None:
    wanted = plain_algorithm_1(run, accumulate)
    record = Record()
    run.fit(record, accumulate_grad_batches=accumulate)
    assert run.ends == wanted["ends"]
    # A loss is a difference of terms and may come near 0.
    scale = max(abs(loss) for loss in wanted["losses"])
    assert record.losses == pytest.approx(wanted["losses"], abs=tolerance * scale, rel=0)
    for got, want in zip(record.gradients, wanted["gradients"], strict=True):
        assert relative_error(got, want) <= tolerance
    for got, want in zip(record.parameters, wanted["parameters"], strict=True):
        assert relative_error(got, want) <= tolerance
    assert run.moved() > 1e-3


def two_layers(architecture: Architecture, **values: Any) -> TinyRun:
    """Shallow, so that float32's rounding stays well below the tolerance."""
    chat_model = tiny_chat_model(architecture, num_hidden_layers=2, initializer_range=0.07)
    return TinyRun(chat_model=chat_model, layers=(1, 2), **values)


LORA_CASES: dict[str, dict[str, Any]] = {
    "adapter": {"reference": "adapter"},
    "copy": {"reference": "copy"},
    "raw unit": {"loss": LossSettings(distance_unit="raw", kl_weight=0.5, separation_weight=0.1)},
    "last position": {"loss": LossSettings(kl_positions="last")},
    "response positions": {"loss": LossSettings(kl_positions="response")},
    "KL on refusals": {"loss": LossSettings(harmful_kl_weight=0.7), "refusals": 7},
    "micro-batches": {"step": StepSettings(micro_batch=2)},
    "joint": {"schedule": ScheduleSettings(order="joint", kl_threshold=100.0, max_steps=4)},
}


@pytest.mark.parametrize("case", LORA_CASES)
def test_lora(case: str) -> None:
    assert_parity(two_layers("llama", **LORA_CASES[case]))


@pytest.mark.parametrize("architecture", ["mistral", "qwen2"])
def test_other_architectures(architecture: Architecture) -> None:
    assert_parity(two_layers(architecture, reference="adapter"))


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text"])
def test_architectures_that_normalise_queries_and_keys(architecture: Architecture) -> None:
    # That norm multiplies the rounding of the small random states here.
    assert_parity(two_layers(architecture, reference="adapter"), tolerance=5e-6)


def test_all_weights() -> None:
    assert_parity(two_layers("llama", mode="full"))


@pytest.mark.parametrize("harmful_per_batch", [3, 4])
def test_accumulated_steps(harmful_per_batch: int) -> None:
    """Two batches a step; with 3 batches in an epoch, its last step has one."""
    run = two_layers("llama", reference="adapter", harmful_per_batch=harmful_per_batch)
    assert_parity(run, accumulate=2)


@pytest.mark.parametrize(
    ("accumulate", "thresholds", "ended", "steps"),
    [(1, [0.025, 100.0], 0, 1), (1, [100.0, 0.04], 1, 2), (2, [100.0, 0.04], 1, 1)],
)
def test_a_threshold_that_is_exceeded(
    accumulate: int, thresholds: list[float], ended: int, steps: int
) -> None:
    run = two_layers(
        "llama",
        reference="adapter",
        harmful_per_batch=3,
        loss=LossSettings(kl_weight=0.05),
        schedule=ScheduleSettings(kl_threshold=thresholds, max_steps=4),
        optimizer=partial(torch.optim.AdamW, lr=5e-3),
    )
    # Steps large enough to raise the KL carry rounding on from one to the next.
    assert_parity(run, accumulate, tolerance=5e-6)
    assert run.ends[ended] == ((ended + 1,), "kl_threshold", steps)
    assert run.ends[1 - ended] == ((2 - ended,), "budget", 4)


SHIPPED = Path(es2_lightning.__file__).parent / "organism" / "checkpoint"


@pytest.mark.slow
def test_many_steps_on_the_shipped_organism() -> None:
    """Two stages of 12 steps with batches of 50 + 10 and refusals, as in a user's run."""
    chat_model = ChatModel.load(str(SHIPPED))
    prompts = OrganismPrompts().load()
    run = TinyRun(
        chat_model=chat_model,
        reference="adapter",
        layers=(chat_model.num_layers // 2, chat_model.num_layers),
        splits=prompts,
        harmless_per_batch=50,
        harmful_per_batch=10,
        refusals=200,
        refusal="I cannot help with that.",
        loss=LossSettings(separation_weight=0.03, harmful_kl_weight=1.0),
        schedule=ScheduleSettings(kl_threshold=100.0, max_steps=12),
    )
    # Rounding that is carried on through 24 of Adam's steps; each alone is tested above.
    assert_parity(run, tolerance=1e-4)
