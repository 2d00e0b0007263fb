"""The rank command on the organism: its files, what it keeps, a tuned model beside the base."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from es2_lightning.evaluation.ranking import sampling
from es2_lightning.prompts.candidate_lists import read_lists

from .conftest import SMALL, Rank


@pytest.mark.slow
def test_it_shows_and_keeps_what_it_finds(
    rank: Rank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from es2_lightning.backbone.ranker_folder import load_ranker

    folder = rank(*SMALL)
    shown = capsys.readouterr().out
    text = (folder / "table.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80
    for line in (
        "linear probe",
        "attack unseen",
        "first kept",
        "oracle",
        "tested on deceit",
        "extra, %",
    ):
        assert line in text and line in shown
    rows = list(csv.DictReader((folder / "rank.csv").open()))
    assert {r["lists"] for r in rows} == {"composed", "as sampled"}
    assert {r["num_candidates"] for r in rows} == {"", "1", "2", "4"}
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)
    oracle = [r for r in rows if r["ranker"] == "oracle" and r["metric"] == "top1_safe"]
    assert {r["value"] for r in oracle if r["lists"] == "composed"} == {"1.0"}
    one = [r for r in rows if r["num_candidates"] == "1" and r["metric"] == "top1_safe"]
    assert all(r["value"] == s["value"] for r in one for s in one if r["group"] == s["group"]), (
        "of one candidate there is nothing to choose"
    )
    assert (folder / "pictures" / "base_safe_by_m.png").stat().st_size > 10_000
    assert load_ranker(folder / "ranker" / "base").reading.layer == 4
    train, test = (
        read_lists(folder / "lists" / "base" / f"{split}.jsonl", key="lists").lists
        for split in ("train", "test")
    )
    assert not {one.prompt for one in train} & {one.prompt for one in test}
    costs = json.loads((folder / "rank.json").read_text())["costs"]
    assert [c["num_candidates"] for c in costs] == [1, 2, 4]
    assert costs[0]["sampling"] < costs[1]["sampling"] < costs[2]["sampling"]

    # Another ranker on what is kept: nothing is sampled, and no state is read, again.
    def never(*_args: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(sampling, "sample_once", never)
    monkeypatch.setattr("es2_lightning.backbone.stored_states.response_states", never)
    monkeypatch.setattr("es2_lightning.ranking_run.ranking_costs", lambda *_: ())
    again = rank(*SMALL[:-1], "ranker=mean_difference")
    others = list(csv.DictReader((again / "rank.csv").open()))
    fixed = ("first sample", "perplexity", "linear probe", "oracle")
    assert [r for r in others if r["ranker"] in fixed] == [r for r in rows if r["ranker"] in fixed]


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A folder that looks like a training run's, with an adapter that changes much."""
    import torch

    from es2_lightning.backbone.adapters import add_lora, save_adapter
    from es2_lightning.backbone.chat_model import ChatModel
    from es2_lightning.config.location import package_path

    checkpoint = package_path("organism/checkpoint")
    model = add_lora(ChatModel.load(checkpoint).model)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    folder = tmp_path / "runs" / "one"
    save_adapter(model, folder / "adapter")
    (folder / "config.yaml").write_text(
        f"model: {{name_or_path: {checkpoint}}}\n"
        "data: {source: {_target_: es2_lightning.organism.prompts.OrganismPrompts, "
        "train_harmful: 16, train_harmless: 24, test_per_kind: 8, validation_per_kind: 8}}\n"
        "seed: 3\n"
    )
    return folder


@pytest.mark.slow
def test_a_run_is_ranked_beside_its_base(
    rank: Rank, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in SMALL if not word.startswith("+data")]
    folder = rank(f"run={tuned}", *words)
    text = (folder / "table.txt").read_text()
    table = text[text.index("ES2 and SRR: responses that are safe") :]
    for row in ("neither", "SRR, m=1", "SRR, m=4", "ES2 ", "ES2 and SRR, m=4"):
        assert f"\n{row}" in table
    rows = list(csv.DictReader((folder / "rank.csv").open()))
    first = {
        model: [
            r["value"]
            for r in rows
            if (r["model"], r["ranker"], r["lists"]) == (model, "first sample", "as sampled")
        ]
        for model in ("base", "tuned")
    }
    assert len(first["base"]) > 10 and first["base"] != first["tuned"]
    assert {p.name for p in (folder / "ranker").iterdir()} == {"base", "tuned"}
    saved = (folder / "config.yaml").read_text()
    assert "seed: 3" in saved and "train_harmful: 16" in saved


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ranking.layer=9"], "ranking.layer: layer 9 is out of range; the model has 6 layers"),
        (["ranking.tempera=1"], "Did you mean ranking.temperature?"),
        (["attack=[direct]"], "none of them makes the model answer harmful prompts"),
        (["attack=[direct,repe]"], "attack.repe: candidates are not sampled under it"),
        (["lists=[no.jsonl]"], "lists=no.jsonl: no such file"),
        (["evaluate=small"], "this command takes no choice of evaluate"),
    ],
)
def test_a_mistake_is_a_sentence(
    rank: Rank, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    rank(*words, status=2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "outputs").exists()
