"""The scaling benchmark: the closed form of what is sent against real steps, and predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from es2_lightning.config.benchmark_check import prepare
from es2_lightning.errors import UserError
from es2_lightning.training.cost.named_shapes import NAMED_SHAPES
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape, StepPlan, batch_rows
from es2_lightning.training.scaling.communication import Communication, weight_communication
from es2_lightning.training.scaling.hardware import Cluster
from es2_lightning.training.scaling.predict import Job, predict

from .conftest import Benchmark

ODD = ModelShape(
    num_layers=3,
    hidden_size=27,
    intermediate_size=45,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=10,
    vocab_size=65,
)
"""Widths that two processes cannot share evenly."""
CARDS = Cluster(
    name="cards",
    devices=8,
    per_node=8,
    memory_gb=24,
    peak_tflops=100,
    mfu=0.5,
    memory_gb_s=1000,
    link_gb_s=20,
    node_gb_s=10,
    link_efficiency=0.5,
    latency_us=0,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("fsdp", ["model.lora.target_modules=all-linear", "model.lora.r=3"]),
        ("fsdp", ["model.reference=adapter"]),
        ("ddp", ["model.lora.r=3"]),
    ],
)
def test_the_closed_form_is_what_two_processes_send(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, strategy: str, words: list[str]
) -> None:
    monkeypatch.setitem(NAMED_SHAPES, "odd", ODD)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    small = ("benchmark.harmless=5", "benchmark.harmful=3", "benchmark.steps=1")
    folder = benchmark(
        f"trainer={strategy}", "model.shape=odd", "benchmark.processes=[2]", *small, *words
    )
    found = read(folder)
    (run,) = found["measured"]
    assert run["strategy"] == strategy
    assert run["counted"] == run["predicted"]
    assert run["counted"]["all_gather"] > 0
    assert run["tokens_per_second"] == pytest.approx(run["tokens"] / run["seconds"][0])
    assert {p["strategy"] for p in found["predicted"]} == {strategy}


def test_clusters_are_predicted_without_processes(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read(benchmark("benchmark=scaling", "device=meta"))
    assert found["measured"] == []
    fits = {
        (p["model"], p["cluster"]["name"], p["strategy"]): p["fits"] for p in found["predicted"]
    }
    assert len(fits) == 12
    assert fits["llama3_8b", "8 x 24 GB", "ddp"]
    assert not fits["llama3_70b", "8 x 80 GB", "ddp"], "141 GB of weights"
    assert fits["llama3_70b", "8 x 80 GB", "fsdp"]
    printed = capsys.readouterr().out
    assert "llama3_70b" in printed and "…" not in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80


def test_trainer_alone_chooses_the_scaling_benchmark() -> None:
    assert "benchmark=scaling" in prepare(["trainer=fsdp"])
    assert "benchmark.strategies=[fsdp]" in prepare(["trainer=fsdp", "benchmark=scaling"])
    with pytest.raises(UserError, match="trainer=cpu: the benchmark measures"):
        prepare(["trainer=cpu"])


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark.clusters.new.devices=8"],
        ["benchmark.strategies=[tp]"],
        ["model.reference=copy"],
        ["model.shape=null", "model.name_or_path=x"],
    ],
)
def test_what_cannot_be_measured_is_refused(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    words = [f"+{w}" if ".new." in w else w for w in words]
    benchmark("benchmark=scaling", *words, status=2)
    assert "Traceback" not in capsys.readouterr().err


def test_llama_3_8b_under_fsdp_by_hand() -> None:
    shape, lora = NAMED_SHAPES["llama3_8b"], LoraShape(8, frozenset({"q_proj", "v_proj"}))
    sent = weight_communication(shape, lora, strategy="fsdp", devices=8, weight_bytes=2)
    # Of a block: q and o, k and v, the MLP, two norms; in bf16. LoRA's A and B in float32.
    block = 2 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096)
    adapter = 4 * 8 * (4096 + 4096 + 4096 + 1024)
    root = 2 * (2 * 128256 * 4096 + 4096)
    assert sent.all_gather == 2 * 32 * (block + adapter) + root
    assert sent.reduce_scatter == 32 * adapter
    assert sent.all_reduce == 0
    assert sent.sent(8) == (sent.all_gather + sent.reduce_scatter) * 7 / 8
    # Rank 8 cut into 64 parts: A is sent eight times as large.
    many = weight_communication(shape, lora, strategy="fsdp", devices=64, weight_bytes=2)
    assert many.reduce_scatter == 32 * (8 * 4 * 8 * 2 * 4096 + 4 * 8 * (4096 + 1024))
    assert Communication(all_reduce=80).sent(8) == 2 * 80 * 7 / 8


def test_times_follow_the_cluster() -> None:
    whole = predict(job(), CARDS, "fsdp")
    assert whole.communication_seconds == pytest.approx(whole.communication.sent(8) / 10e9)
    assert whole.compute_seconds == pytest.approx(whole.flops / 50e12)
    assert predict(job(), replace(CARDS, memory_gb_s=1), "fsdp").compute_seconds == pytest.approx(
        2 * NAMED_SHAPES["llama3_8b"].parameters * 2 / 1e9
    ), "weights are read forward and backward"
    nodes = predict(job(), replace(CARDS, devices=16), "fsdp")
    assert nodes.communication_seconds == pytest.approx(nodes.communication.sent(16) / 5e9)
    late = predict(job(), replace(CARDS, latency_us=1e6), "ddp")
    assert late.communication_seconds > late.communication.collectives
    alone = predict(job(), replace(CARDS, devices=1), "fsdp")
    assert alone.communication_seconds == 0 and alone.memory.unsharded == 0
    live = predict(replace(job(), plan=StepPlan(reference="adapter")), CARDS, "fsdp")
    gathered = live.communication.all_gather - whole.communication.all_gather
    block = 2 * NAMED_SHAPES["llama3_8b"].block_parameters
    assert gathered == pytest.approx((32 + 1) * block, rel=0.01), "one is fetched in vain"


def test_memory_of_parts() -> None:
    ddp, fsdp = (predict(job(), CARDS, strategy).memory for strategy in ("ddp", "fsdp"))
    assert fsdp.weights == ddp.weights // 8 and fsdp.trained == ddp.trained // 8
    assert (fsdp.activations, fsdp.transient) == (ddp.activations, ddp.transient)
    assert ddp.unsharded == 0 and fsdp.unsharded > 2 * 2 * 128256 * 4096, "the root's weights"


@pytest.mark.parametrize(
    "wrong", [{"mfu": 1.2}, {"devices": 12}, {"memory_gb": 0}, {"latency_us": -1}]
)
def test_a_cluster_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(UserError, match=f"clusters.cards.({key}|per_node)="):
        replace(CARDS, **wrong)


def job() -> Job:
    shape = NAMED_SHAPES["llama3_8b"]
    return Job(
        model="llama3_8b",
        shape=shape,
        rows=batch_rows([30] * 50, [30] * 10, layer=10, num_layers=32),
        plan=StepPlan(reference="cached"),
        lora=LoraShape(8, frozenset({"q_proj", "v_proj"})),
        cached_positions=1000,
    )


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    assert (folder / "pictures" / "benchmark.png").stat().st_size > 10_000
    return found
