"""What one step does and does not do: thresholds, modes, the reference, the fresh optimizer."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from es2_lightning.backbone.adapters import adapter_is_on
from es2_lightning.backbone.structure import causal_lm_of
from es2_lightning.errors import UserError
from es2_lightning.training.settings import LossSettings, ScheduleSettings

from ..tiny_models import tiny_chat_model
from .tiny_runs import Record, TinyRun, trainable


def momenta(trainer: L.Trainer) -> list[dict[str, Tensor]]:
    """A copy of what the optimizer remembers of each parameter."""
    return [copy.deepcopy(state) for state in trainer.optimizers[0].state.values()]


class Threshold(L.Callback):
    """Sets τ before chosen optimizer steps, and notes weights and momenta after each."""

    def __init__(self, drop: set[int]) -> None:
        self.drop = drop
        self.weights: list[dict[str, Tensor]] = []
        self.momenta: list[list[dict[str, Tensor]]] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        # Callbacks come before the module's own check.
        schedule = pl_module.schedule
        if trainer.global_step in self.drop:
            stage = schedule.stages[schedule.stage_index]
            object.__setattr__(stage, "kl_threshold", 1e-9)
        self.before = (trainable(pl_module), momenta(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if len(self.weights) < trainer.global_step:
            self.weights.append(trainable(pl_module))
            self.momenta.append(momenta(trainer))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_beyond_the_threshold_leaves_weights_and_momenta_alone(accumulate: int) -> None:
    run = TinyRun(
        harmful_per_batch=3,
        layers=(4,),
        schedule=ScheduleSettings(kl_threshold=100.0, max_steps=9),
    )
    noted, seen = Threshold(drop={2}), []

    def at_the_end(end: Any) -> None:
        # The fresh optimizer stands ready; the one before it is what `before` noted.
        seen.append(same(trainable(run.module), noted.before[0]))

    run.module.on_stage_end.append(at_the_end)
    optimizers = []
    original = run.module.configure_optimizers

    def configure() -> torch.optim.Optimizer:
        optimizers.append(original())
        return optimizers[-1]

    run.module.configure_optimizers = configure  # type: ignore[method-assign]
    run.fit(noted, accumulate_grad_batches=accumulate)
    assert run.ends == [((4,), "kl_threshold", 2)]
    assert seen == [True] and len(noted.weights) == 3
    assert same(noted.weights[2], noted.weights[1]), "the dropped step moved the weights"
    assert not same(noted.weights[1], noted.weights[0])
    old = [dict(state) for state in optimizers[0].state.values()]
    assert old and same(old, noted.before[1]) and same(old, noted.momenta[1])
    assert run.moved() > 1e-3


def test_the_threshold_meets_the_mean_of_all_accumulated_batches() -> None:
    """One batch beyond τ does not end a stage whose step is below it on average."""
    free, record = TinyRun(harmful_per_batch=3, layers=(4,)), KLs()
    free.fit(record, accumulate_grad_batches=2)
    first, second = record.kl[:2]
    between = (first + second) / 2 + abs(first - second) / 4
    assert min(first, second) < between < max(first, second)
    run = TinyRun(
        harmful_per_batch=3,
        layers=(4,),
        schedule=ScheduleSettings(kl_threshold=between, max_steps=1),
    )
    run.fit(accumulate_grad_batches=2)
    assert run.ends == [((4,), "budget", 1)]
    below = (first + second) / 2 - abs(first - second) / 4
    run = TinyRun(
        harmful_per_batch=3, layers=(4,), schedule=ScheduleSettings(kl_threshold=below, max_steps=1)
    )
    run.fit(accumulate_grad_batches=2)
    assert run.ends == [((4,), "kl_threshold", 0)] and run.moved() == 0


class KLs(L.Callback):
    """Each batch's training KL."""

    def __init__(self) -> None:
        self.kl: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.kl.append(float(trainer.callback_metrics["train/kl"]))


def test_a_new_stage_has_a_fresh_optimizer_at_the_first_learning_rate() -> None:
    class Tampered(torch.optim.AdamW):
        """Keeps state in its groups too, as schedule-free optimizers do."""

        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            for group in self.param_groups:
                group["lr"] /= 2
            return result

    rates, counts = [], []

    class Note(L.Callback):
        def on_before_optimizer_step(
            self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
        ) -> None:
            rates.append(optimizer.param_groups[0]["lr"])
            counts.append(len(optimizer.state))

    run = TinyRun(optimizer=lambda parameters: Tampered(parameters, lr=8e-3))
    run.fit(Note())
    assert rates == [8e-3, 4e-3, 2e-3] * 2
    assert counts[0] == counts[3] == 0 and min(counts[1], counts[4]) > 0
    assert run.moved() > 1e-3


class Modes(L.Callback):
    """Watches every forward pass of the model: who it is for, and in which mode."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: set[tuple[str, str, bool, bool]] = set()
        self.phase = "outside"

        def watch(_module: nn.Module, args: Any, kwargs: Any) -> None:
            who = "policy" if adapter_is_on(model) else "reference"
            modes = {m.training for m in model.modules()}
            assert len(modes) == 1, "some modules are in another mode than the others"
            self.seen.add((self.phase, who, modes.pop(), torch.is_grad_enabled()))

        # A step runs the decoder and leaves logits to the loss.
        causal_lm_of(model).get_decoder().register_forward_pre_hook(watch, with_kwargs=True)

    def on_train_batch_start(self, *_: Any) -> None:
        self.phase = "training"

    def on_validation_start(self, *_: Any) -> None:
        self.phase = "validation"


@pytest.mark.parametrize("kl_check", ["training", "no_dropout"])
def test_modes(kl_check: str) -> None:
    """The policy trains in train mode and validates in eval mode; the reference is in eval mode."""
    run = TinyRun(reference="adapter", dropout=0.1, loss=LossSettings(kl_check=kl_check))
    watcher = Modes(run.module.model)
    assert not run.module.model.training, "transformers models arrive in eval mode"
    run.fit(watcher)
    inside = {seen for seen in watcher.seen if seen[0] != "outside"}
    expected = {
        ("training", "policy", True, True),
        ("training", "reference", False, False),
        ("validation", "policy", False, False),
        ("validation", "reference", False, False),
    }
    if kl_check == "no_dropout":
        expected.add(("training", "policy", False, False))
    assert inside == expected
    assert not run.module.model.training, "what follows the training measures the model"
    assert adapter_is_on(run.module.model) and run.moved() > 1e-3


@pytest.mark.parametrize("reference", ["adapter", "copy"])
def test_the_reference_stays_what_it_was(reference: str) -> None:
    run = TinyRun(reference=reference, dropout=0.5)
    rows = run.data.collate(run.splits.train.harmless[:4], run.splits.train.harmful[:2]).rows
    with torch.no_grad():
        base = torch.cat(
            [run.base.model(torch.tensor([row.token_ids])).last_hidden_state[0] for row in rows[:4]]
        )
    names = {n for n, p in run.module.named_parameters() if p.requires_grad}
    run.fit()
    run.module.train()  # what a LightningModule does to all that it holds
    for _ in range(2):
        outputs = run.reference_object.outputs(rows)
        torch.testing.assert_close(outputs.hidden_ED, base)
        assert not outputs.hidden_ED.requires_grad
    assert {n for n, p in run.module.named_parameters() if p.requires_grad} == names
    assert sum(p.numel() for p in run.module.parameters()) == sum(
        p.numel() for p in run.module.model.parameters()
    ), "the reference is no part of the module"
    with run.reference_object.chat_model() as chat_model:
        assert not chat_model.model.training
    assert run.moved() > 1e-3


def test_the_check_without_dropout_sees_none() -> None:
    """The training KL of the same weights differs from draw to draw; this one does not."""

    def compared(kl_check: str, seed: int) -> float:
        loss = LossSettings(kl_check=kl_check)
        settings = ScheduleSettings(kl_threshold=1e-9, max_steps=1)
        run = TinyRun(dropout=0.5, layers=(4,), loss=loss, schedule=settings, reference="adapter")
        torch.manual_seed(seed)
        run.fit()
        assert run.module.schedule is not None
        return run.module.schedule.ends[0].kl

    assert compared("no_dropout", 1) == compared("no_dropout", 2)
    assert compared("training", 1) != compared("training", 2)
    still = TinyRun(dropout=0.0, layers=(4,))
    batch = next(iter(still.data.train_dataloader()))
    with torch.no_grad():
        still.module.objective.measure_base_norms(still.splits.train)
        kl = float(still.module.objective(batch, [4]).kl)
    assert compared("no_dropout", 1) == pytest.approx(kl, rel=1e-5)


def test_kl_positions_change_the_kl() -> None:
    values = set()
    for positions in ("all", "last", "response"):
        run, record = TinyRun(loss=LossSettings(kl_positions=positions)), Record()
        run.fit(record)
        values.add(round(record.losses[0], 6))
        assert run.moved() > 1e-3
    assert len(values) == 3


def test_everything_is_logged() -> None:
    run = TinyRun(refusals=6, loss=LossSettings(harmful_kl_weight=0.5))
    metrics = run.fit().callback_metrics
    for phase in ("train", "validation"):
        wanted = {f"{phase}/{name}" for name in ("loss", "kl", "separation")}
        for layer in (2, 4):
            wanted |= {
                f"{phase}/layer_{layer}/{name}"
                for name in (
                    "distance",
                    "distance_relative",
                    "distance_within_harmful",
                    "distance_within_harmless",
                    "norm_harmful",
                    "norm_harmless",
                )
            }
        assert wanted <= metrics.keys()
    assert {
        "train/harmful_kl",
        "train/gradient_norm",
        "train/stage",
        "train/kl_threshold",
    } <= metrics.keys()
    assert "validation/harmful_kl" not in metrics, "no refusals were given for that split"


def test_a_layer_before_everything_that_trains_is_refused() -> None:
    chat_model = tiny_chat_model("llama", initializer_range=0.07)
    run = TinyRun(chat_model=chat_model, layers=(1, 4))
    for name, parameter in run.module.named_parameters():
        if "layers.0." in name:
            parameter.requires_grad_(False)
    with pytest.raises(UserError, match="layer 1 cannot be separated"):
        run.fit()
