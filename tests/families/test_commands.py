"""train, probe and evaluate on a folder of each family, as a user would type it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ..commands import run_command
from ..evaluate.conftest import QUICK, Evaluate, evaluate  # noqa: F401
from ..model_families import FAMILIES, save_family
from ..train.conftest import Train, train  # noqa: F401

FAST = ("gemma2",)
"""Soft-capping and sliding windows."""


@pytest.fixture(scope="module")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """harmful.jsonl and harmless.jsonl, enough for every split."""
    folder = tmp_path_factory.mktemp("prompts")
    things = (
        "kettle",
        "lamp",
        "clock",
        "door",
        "bicycle",
        "engine",
        "radio",
        "pump",
        "saw",
        "bell",
    )
    ways = ("quickly", "slowly", "at night", "with one hand", "in the rain", "for a friend")
    for kind, verbs in (("harmful", ("break", "steal")), ("harmless", ("mend", "draw"))):
        rows = [{"prompt": f"{v} a {t} {w}"} for v in verbs for t in things for w in ways]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
    return folder


def on(folder: Path, prompts: Path) -> tuple[str, ...]:
    """A run of two steps, as a user would type it."""
    return (
        "model=hf",
        f"model.name_or_path={folder}",
        "data=prompts",
        f"data.source.harmful={prompts / 'harmful.jsonl'}",
        f"data.source.harmless={prompts / 'harmless.jsonl'}",
        "data.harmless_per_batch=6",
        "data.harmful_per_batch=3",
        "schedule.max_steps=1",
        "schedule.max_epochs=null",
        "schedule.kl_threshold=100",
        "layers.emergence=1",
        "trainer.accelerator=cpu",
        "evaluate=none",
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in FAMILIES]
)
def test_a_family_trains_and_is_probed_and_evaluated(
    name: str,
    train: Train,  # noqa: F811
    evaluate: Evaluate,  # noqa: F811
    prompt_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_family(name, tmp_path / "model")
    run = train(*on(folder, prompt_files))
    with (run / "metrics.csv").open() as file:
        steps = [row for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(steps) == 2 and all(float(row["train/kl"]) >= 0 for row in steps)
    written = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert written["r"] == 8 and written["base_model_name_or_path"] == str(folder)
    probe(run, monkeypatch)
    evaluate(f"run={run}", "attack=[direct,scav]", "attack.scav.p1=0.2", *QUICK)
    results = next(tmp_path.glob("**/results.csv"))
    with results.open() as file:
        attacks = {row["attack"].partition(".")[0] for row in csv.DictReader(file)}
    assert {"direct", "scav"} <= attacks


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("llama", ("model.mode=dora",)),
        ("llama", ("model.mode=full", "model.reference=copy", "model.dtype=float32")),
        pytest.param(
            *("llama", ("model.gradient_checkpointing=true", "step.micro_batch=2")),
            marks=pytest.mark.slow,
        ),
        # Without dropout peft adapts the experts too.
        pytest.param("mixtral", ("model.lora.lora_dropout=0",), marks=pytest.mark.slow),
    ],
    ids=["dora", "full", "checkpointing", "experts"],
)
def test_what_a_mode_trained_is_probed(
    family: str,
    words: tuple[str, ...],
    train: Train,  # noqa: F811
    prompt_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save_family(family, tmp_path / "model")
    run = train(*on(folder, prompt_files), *words)
    probe(run, monkeypatch)
    shown = capsys.readouterr().out
    assert "changes nothing" not in shown and "tuned" in shown


def probe(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m es2_lightning.probe run=…`"""
    from es2_lightning.probe import main

    run_command(main, f"run={run}", "device=cpu", monkeypatch=monkeypatch)
