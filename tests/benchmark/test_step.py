"""The benchmark of a training step: every way gives the naive figures, and what each costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..tiny_models import tiny_chat_model
from .conftest import Benchmark

FEW = ("benchmark.harmless=8", "benchmark.harmful=4", "benchmark.rounds=1")
CUMULATIVE = ["naive", "cb", "a", "b", "c", "d", "e", "f", "g", "set"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of two layers in a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    chat_model = tiny_chat_model(num_hidden_layers=2, hidden_size=256, initializer_range=0.03)
    chat_model.model.save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)
    return f"model.name_or_path={folder}"


def read(folder: Path) -> dict[str, Any]:
    """What a run wrote."""
    found: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    assert (folder / "pictures" / "benchmark.png").stat().st_size > 10_000
    return found


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], ["micro_batches", "checkpointing"]),
        (["benchmark.layer=-1", "benchmark.kl_positions=last", "step=plain"], ["autocast"]),
    ],
)
def test_all_ways_give_the_naive_figures(
    benchmark: Benchmark, tiny: str, words: list[str], options: list[str]
) -> None:
    found = read(benchmark(*FEW, tiny, *words, f"benchmark.options=[{','.join(options)}]"))
    ways = found["ways"]
    assert list(ways) == [*CUMULATIVE, *options]
    for name, way in ways.items():
        errors = [way[f"{of}_error"] for of in ("loss", "kl", "gradient")]
        if name == "autocast":
            assert all(1e-6 < error < 0.5 for error in errors), "it is really bf16"
        else:
            assert max(errors) <= 2e-6, name
        assert len(way["wall_seconds"]) == len(way["cpu_seconds"]) == 1
    assert found["kl"] > 1e-3, "the adapter moved"
    assert found["measured"]["layer"] == (2 if "benchmark.layer=-1" in words else 1)
    assert min(ways[name]["over_floor"] for name in "efg") >= 1, "a floor is a floor"
    spared = [ways[name]["flops_saved"] for name in CUMULATIVE[2:9]]
    assert spared == sorted(spared), "no optimisation costs FLOPs"


@pytest.mark.slow
def test_on_meta_it_counts_what_a_large_model_costs(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = benchmark("model.shape=llama3_8b", "device=meta", "benchmark.options=[]")
    found = read(folder)
    assert found["measured"]["parameters"] == 8_030_261_248
    ways = found["ways"]
    # The published measurements' targets, which are counts and so the same everywhere.
    assert ways["g"]["flops_saved"] >= 3.0 and ways["g"]["step_bytes_saved"] >= 2.5
    assert ways["cb"]["total_flops"] / ways["g"]["total_flops"] >= 3.2
    saved = [ways[name]["flops_saved"] for name in ("cb", "a", "b", "c", "e", "f", "g")]
    assert saved == sorted(saved), "each optimisation saves something"
    for name in "efg":
        assert 1 <= ways[name]["over_floor"] <= 1.05
    assert ways["naive"]["weight_bytes"] > 1.9 * ways["cb"]["weight_bytes"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "llama3_8b, 8.03 billion parameters" in shown and "layer 10" in shown
    assert "PASS" in shown and "FAIL" not in shown and "only counted" in shown


def test_lengths_are_those_of_the_prompts(benchmark: Benchmark, tiny: str, tmp_path: Path) -> None:
    for kind, words in (("harmful", 3), ("harmless", 12)):
        rows = [[f"w{i % 40}", f"w{i // 40}"] + ["w0"] * (words + i % 3 - 1) for i in range(60)]
        lines = [json.dumps({"prompt": " ".join(row)}) + "\n" for row in rows]
        (tmp_path / f"{kind}.jsonl").write_text("".join(lines))
    files = [f"data.source.{kind}={tmp_path / kind}.jsonl" for kind in ("harmful", "harmless")]
    common = [tiny, "device=meta", "benchmark.lengths=data", "benchmark.options=[]", "data=prompts"]
    found = read(benchmark(*FEW, *common, *files, "data.source.near_duplicates=ignore"))
    lengths = found["measured"]["lengths"]
    # 4 … 6 and 13 … 15 words, and the template's 3 tokens, of which the first 2 are common.
    assert {*lengths["harmful"]} == {7, 8, 9} and {*lengths["harmless"]} == {16, 17, 18}
    assert lengths["prefix"] == 2 and "own tokens" in lengths["source"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark=nosuch"], "benchmark has no choice nosuch"),
        (["model.shape=lama3_8b"], "Did you mean llama3_8b?"),
        (["benchmark.layer=13"], "benchmark.layer=13: the model has 12 layers"),
        (["benchmark.layer=0"], "benchmark.layer=0: accepted are 1 … L"),
        (["benchmark.rounds=0"], "benchmark.rounds=0: at least 1 is needed"),
        (["benchmark.kl_positions=response"], "accepted are all, last"),
        (["benchmark.options=[fast]"], "benchmark.options: fast is none"),
        (["benchmark.lengths=nosuch"], "accepted are builtin, data"),
        (["model=organism", "model.mode=full"], "a step is measured with model.mode=lora"),
        (["loss=paper"], "takes no choice of loss"),
        (["threads=0"], "threads=0 is not accepted"),
    ],
)
def test_a_mistake_is_a_sentence(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    benchmark(*words, status=2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
