"""What is told of a step's benchmark: tables that fit, verdicts that are plain."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from es2_lightning.config.benchmark_check import with_shape
from es2_lightning.reports.step_benchmark_report import step_tables, write_step_report
from es2_lightning.training.step_benchmark.peak_flops import peak_flops_of
from es2_lightning.training.step_benchmark.results import StepResult
from es2_lightning.training.step_benchmark.targets import check_targets

from .step_results import step_result


def told(result: StepResult) -> str:
    """The tables as they look in a terminal of 80 columns."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(step_tables(result))
    return console.export_text()


def verdicts(result: StepResult) -> dict[str, str]:
    """Each target's verdict, by its first word and what it is over."""
    return {target.words: target.verdict for target in check_targets(result)}


def test_what_is_reached_passes() -> None:
    found = verdicts(step_result())
    assert found["FLOPs / floor: statistics cache, prefix"] == "PASS"  # 1.02
    assert found["FLOPs / floor: hidden-state cache, prefix"] == "FAIL"  # 1.10
    assert found["step memory, naive / ours"] == "FAIL"  # 3.92 of 4
    assert found["CPU seconds on a CPU, naive / ours"] == "PASS"  # 2.5
    assert found["FLOPs, naive / ours"] == "–", "that one is of the 8B shape"


def test_a_target_is_only_asked_of_the_runs_that_it_is_for() -> None:
    of_8b = step_result(model="llama3_8b", layer=10, depth=32, device="meta")
    found = verdicts(of_8b)
    assert found["FLOPs, naive / ours"] == "PASS"  # 3.92 of 3.0
    assert found["FLOPs, circuit-breakers style / ours"] == "PASS"
    assert found["wall time on a CPU, naive / ours"] == "–"
    last = verdicts(step_result(kl_positions="last"))
    assert last["FLOPs / floor: hidden-state cache, prefix"] == "PASS", "up to 1.12 there"
    assert last["FLOPs / absolute floor"] == "–"
    with_dropout = verdicts(step_result(lora_dropout=0.1))
    assert with_dropout["gradients against naive, relative: the worst of all exact ways"] == "–"


def test_a_miss_is_said_plainly() -> None:
    inexact = step_result(error=3e-5)
    assert sum(t.verdict == "FAIL" for t in check_targets(inexact)) == 4
    assert told(inexact).count("FAIL") == 4 and "3.0e-05" in told(inexact)


@pytest.mark.parametrize("device", ["cpu", "meta", "cuda"])
def test_all_figures_are_told_in_80_columns(device: str) -> None:
    result = step_result(device=device)
    text = told(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text.replace("a … g", ""), "nothing is cut off"
    words = " ".join(text.split())
    for figure in ("small12_32k", "68.0 million", "layer 4", "fill 0.59", "common prefix 5"):
        assert figure in words
    for times in ("naive 5.00 [4.00–6.00] 1.00×", "+ packing 2.00 [2.00–2.00] 2.50×"):
        assert (times in words) == (device != "meta")
    assert ("tokens/s" in words) == (device == "cuda")


def test_a_way_that_did_not_run_is_named() -> None:
    result = step_result()
    assert result.timings is not None
    left = {name: s for name, s in result.timings.wall.items() if name != "naive"}
    timings = replace(result.timings, wall=left, cpu=left)
    gone = replace(result, failed={"naive": "out of memory"}, timings=timings)
    assert "naive did not run: out of memory." in told(gone)
    assert verdicts(gone)["wall time on a CPU, naive / ours"] == "–"


def test_the_files_hold_the_figures(tmp_path: Path) -> None:
    path = write_step_report(step_result(), tmp_path, console=Console(file=io.StringIO()))
    found = json.loads(path.read_text())
    naive, ours = found["ways"]["naive"], found["ways"]["g"]
    assert ours["flops_saved"] == pytest.approx(naive["total_flops"] / ours["total_flops"])
    assert ours["wall_saved"] == 2.5 and naive["cpu_seconds"] == [4, 6]
    assert found["measured"]["fill"] == pytest.approx(0.59, abs=0.01)
    assert {t["verdict"] for t in found["targets"]} == {"PASS", "FAIL", "–"}
    assert (tmp_path / "pictures" / "benchmark.png").stat().st_size > 10_000


def test_a_gpus_peak_is_known_by_its_name() -> None:
    assert peak_flops_of("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops_of("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops_of("NVIDIA L40S", "float16") == 362e12
    assert peak_flops_of("NVIDIA H100 PCIe", "float32") is None
    assert peak_flops_of("Some GPU", "bfloat16") is None


def test_without_a_model_a_small_shape_is_measured() -> None:
    assert with_shape(["threads=2"]) == ["threads=2", "model.shape=small12_32k"]
    for words in (["model=organism"], ["model.shape=llama3_8b"], ["benchmark=scav"], ["--help"]):
        assert with_shape(words) == words
