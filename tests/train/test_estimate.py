"""What a run will take is told before weights load, and what to lower where it will not fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import es2_lightning.train  # noqa: F401  (registers the schema and the resolvers)
from es2_lightning import training_estimate
from es2_lightning.backbone import kept_model
from es2_lightning.config.location import conf_dir
from es2_lightning.reports.estimate_report import estimate_lines, shortage
from es2_lightning.training.cost.run_estimate import RunEstimate
from es2_lightning.training_estimate import estimate_run
from es2_lightning.training_parts import read_data

from .conftest import SMALL, Train

MIB = 2**20
CPU = torch.device("cpu")
Estimate = Callable[..., RunEstimate]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how much memory is free."""

    def set_to(nbytes: int) -> None:
        monkeypatch.setattr(training_estimate, "free_bytes", lambda device: nbytes)

    return set_to


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were to be loaded")

    monkeypatch.setattr(kept_model, "load_chat_model", refuse)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)


@pytest.fixture
def estimate(monkeypatch: pytest.MonkeyPatch) -> Estimate:
    """Of a small run with these words."""
    monkeypatch.setattr(training_estimate, "product_rate", lambda *args, **kwargs: 1e9)

    def of(*words: str) -> RunEstimate:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("train", overrides=[*SMALL, "~callbacks", *words])
        config = OmegaConf.to_object(composed)
        return estimate_run(config, read_data(config), CPU)  # type: ignore[arg-type]

    return of


def test_it_stops_there(
    train: Train, tmp_path: Path, no_weights: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(*SMALL, "estimate=true")
    shown = capsys.readouterr().out
    for words in (
        "weights (1,275,776 parameters)",
        "activations",
        "matrix products here",
        "4.87 MiB",
    ):
        assert words in shown
    assert "which probes will find, is 2" in " ".join(shown.split())
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left <= {"train.log", "config.yaml", "hydra.yaml", "overrides.yaml"}


def test_a_run_tells_it_in_two_lines(
    train: Train, capsys: pytest.CaptureFixture[str], free: Callable[[int], None]
) -> None:
    words = (*SMALL, "evaluate=none", "layers=single", "schedule.max_steps=1")
    train(*words)
    shown = capsys.readouterr().out
    assert len(re.findall(r"^Estimate: ", shown, re.MULTILINE)) == 2
    assert "at most 1 steps" in shown and "not fit" not in shown
    assert shown.index("Estimate: ") < shown.index("Loading ")
    free(3 * MIB)
    train(*words)
    shown = capsys.readouterr().out
    assert re.search(r"will not fit: it needs \S+ MiB of cpu's memory, of which 3 MiB are", shown)
    assert "several of these: step.micro_batch=1" in shown


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), ["step.micro_batch", "model.gradient_checkpointing=true", "data.harmless_per_batch"]),
        ((), ["model.max_length", "model.dtype=bfloat16", "model.reference_cache.folder"]),
        (("model.reference=copy",), ["model.reference=cached"]),
        (("model.mode=full", "model.reference=copy"), ["model.mode=lora model.reference=cached"]),
        (("step=plain",), ["step.kl_chunk=64"]),
    ],
)
def test_what_to_lower_is_named_and_would_help(
    estimate: Estimate, free: Callable[[int], None], words: tuple[str, ...], named: list[str]
) -> None:
    free(2**40)
    needs = estimate(*words).plan.device_bytes
    free(int(0.9 * needs))
    short = estimate(*words)
    assert short.device_is_short
    (sentence,) = shortage(short)
    remedies = {remedy.words: remedy.device_bytes for remedy in short.remedies}
    for word in named:
        assert any(word in one for one in remedies) and word in sentence
    # What suffices alone stands first, and each is what a run with it would need.
    sizes = list(remedies.values())
    assert sizes[0] <= 0.9 * needs
    assert all(size < needs for size in sizes)
    for remedy, size in remedies.items():
        if "<" in remedy or "max_length" in remedy:
            continue
        # A batch of other prompts is of other lengths.
        rel = 0.1 if "per_batch" in remedy else 1e-9
        found = estimate(*words, *remedy.split()).plan.device_bytes
        assert found == pytest.approx(size, rel=rel), remedy


def test_memory_that_does_is_not_warned_of(estimate: Estimate, free: Callable[[int], None]) -> None:
    free(2**40)
    enough = estimate()
    assert not enough.remedies and not list(shortage(enough))
    assert len(list(estimate_lines(enough))) == 2


def test_flops_follow_the_config(estimate: Estimate) -> None:
    words = ("layers=list", "layers.indices=[2,6]", "loss.harmful_kl_weight=0")
    adapter, cached = (estimate(*words, f"model.reference={r}") for r in ("adapter", "cached"))
    assert [depth for depth, _ in cached.plan.stages] == [2, 6]
    assert [steps for _, steps in cached.plan.stages] == [2, 2]
    shallow, deep = cached.plan.stage_flops
    assert shallow < deep < adapter.plan.stage_flops[1]
    assert adapter.plan.cache_flops == 0 < cached.plan.cache_flops
    assert cached.flops == 2 * shallow + 2 * deep + cached.plan.cache_flops
    assert cached.seconds == cached.flops / 1e9
    twice = estimate(*words, "trainer.accumulate_grad_batches=2")
    assert twice.plan.stage_flops[1] == pytest.approx(2 * deep, rel=0.2)
    assert not cached.assumptions
    assert "32 tokens" in estimate().assumptions[1]


def test_memory_follows_the_config(estimate: Estimate) -> None:
    lora, full = estimate().plan, estimate("model.mode=full", "model.reference=copy").plan
    assert lora.memory.weights == full.memory.weights == full.memory.reference
    assert full.memory.optimizer == 2 * full.memory.weights
    held, on_disk = lora, estimate("model.reference_cache.folder=somewhere").plan
    assert held.device_bytes == on_disk.device_bytes + held.memory.host_cache
    half = estimate("model.dtype=bfloat16").plan
    assert 2 * half.memory.weights == lora.memory.weights


def test_a_cache_too_large_for_the_host(estimate: Estimate) -> None:
    from dataclasses import replace

    found = estimate()
    on_gpu = replace(found.plan, precision=replace(found.plan.precision, device="cuda"))
    short = replace(found, plan=on_gpu, free=2**40, host_free=on_gpu.memory.host_cache - 1)
    (sentence,) = shortage(short)
    assert "model.reference_cache.folder" in sentence and "model.reference=adapter" in sentence
    assert not list(shortage(replace(short, host_free=on_gpu.memory.host_cache)))
