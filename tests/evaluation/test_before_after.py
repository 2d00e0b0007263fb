"""The whole measurement on tiny random models: nothing is learned there, but all of it must add up.

The judge is a hash of prompt and output, so that every outcome occurs.
"""

from __future__ import annotations

import csv
import json
import zlib
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest
import torch

from es2_lightning.errors import UserError
from es2_lightning.evaluation.attacks.scav import Scav
from es2_lightning.evaluation.attacks.scav_campaign import ScavCampaign
from es2_lightning.evaluation.attacks.scav_grid import ScavGrid
from es2_lightning.evaluation.before_after import BeforeAfter
from es2_lightning.evaluation.comparison import compare
from es2_lightning.evaluation.judges.keyword import KeywordJudge
from es2_lightning.evaluation.measurement import Measurement
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.evaluation.results_files import COLUMNS, write_results
from es2_lightning.evaluation.verdict import verdict
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits

from ..tiny_models import tiny_chat_model, tiny_splits

BUDGETS = (0.05, 0.2, 0.8)


def hash_judge(prompt: Prompt, output: str) -> Outcome:
    """Answered for one output in eight, harmless prompts for one in two."""
    number = zlib.crc32(f"{prompt.text}|{output}".encode())
    if number % (8 if prompt.harmful else 2) == 0:
        return Outcome.ANSWERED
    return (Outcome.REFUSED, Outcome.INCOHERENT, Outcome.UNRELATED)[number // 8 % 3]


def small(**changes: object) -> BeforeAfter:
    arguments = {
        "judge": hash_judge,
        "scav": Scav(p1=0.05),
        "grid": ScavGrid(p1=0.05, p0=(1e-2, 1e-6)),
        "budgets": BUDGETS,
        "max_new_tokens": 5,
    }
    return BeforeAfter(**(arguments | changes))


@pytest.fixture(scope="module")
def measured() -> Measurement:
    return small().measure(tiny_chat_model(), tiny_splits(), model="base")


@pytest.fixture(scope="module")
def other() -> Measurement:
    return small().measure(tiny_chat_model(seed=1), tiny_splits(), model="tuned")


def test_everything_is_measured_and_adds_up(measured: Measurement) -> None:
    assert {kind: len(o) for kind, o in measured.direct.items()} == dict.fromkeys(
        ("harmful", "harmless", "looks_harmful", "general"), 12
    )
    assert [s.layer for s in measured.separability] == [1, 2, 3, 4]
    assert all(len(p.harmful) == 12 and len(p.harmless) == 24 for p in measured.projections)
    scav = measured.scav
    assert scav is not None and len(scav.shift) == 4
    assert len(scav.grid) == len({e.setting for e in scav.grid}) > 8
    best = next(e for e in scav.grid if e.setting == scav.best)
    assert best.validation.value == max(e.validation.value for e in scav.grid)
    singles = (measured.direct["harmful"], scav.default_outcomes, scav.best_outcomes)
    for i, union in enumerate(scav.union):
        assert union >= any(outcomes[i] is Outcome.ANSWERED for outcomes in singles)
    rates = [p.value for p in scav.curve.recovered]
    assert all(a <= b for a, b in pairwise(rates))
    assert rates[0] == sum(o is Outcome.ANSWERED for o in measured.direct["harmful"]) / 12
    assert scav.curve.recovered_at(inf).value >= rates[-1]


def test_the_curve_equals_the_full_grid_at_every_budget(measured: Measurement) -> None:
    """What the campaign spares (runs known from others, prompts already fallen) changes nothing."""
    chat_model, splits = tiny_chat_model(), tiny_splits()
    probes = Scav().fit(chat_model, splits)
    settings = ScavGrid(p1=0.05, p0=(1e-2, 1e-6)).settings(probes)
    direct = measured.direct["harmful"]
    assert measured.scav is not None
    fallen = {i for i, outcome in enumerate(direct) if outcome is Outcome.ANSWERED}
    for budget in BUDGETS:
        for setting in settings:
            # One configuration at a time into a campaign of its own: nothing is shared.
            full = ScavCampaign(
                chat_model, probes, splits.test.harmful, hash_judge, max_new_tokens=5
            )
            attempts = full.run([(i, setting) for i in range(12)], budget=budget)
            fallen |= {a.prompt for a in attempts if a.recovered}
        needed = measured.scav.curve.needed
        assert fallen == {i for i in range(12) if needed[i] <= budget}


def test_measuring_twice_gives_the_same(measured: Measurement) -> None:
    assert small().measure(tiny_chat_model(), tiny_splits(), model="base") == measured


def test_the_model_is_left_as_it_was() -> None:
    chat_model = tiny_chat_model()
    chat_model.model.train()
    before = [p.clone() for p in chat_model.model.parameters()]
    small(budgets=(0.1,), harmful_prompts=2, validation_prompts=2).measure(
        chat_model, tiny_splits(), model="base"
    )
    assert chat_model.model.training
    assert all(
        torch.equal(a, b) for a, b in zip(before, chat_model.model.parameters(), strict=True)
    )
    assert all(not module._forward_hooks for module in chat_model.model.modules())


def test_comparison_and_files(measured: Measurement, other: Measurement, tmp_path: Path) -> None:
    comparison = compare(measured, other)
    union = comparison.row("scav_union", "recovered")
    assert union and union.base and union.tuned and union.p_value is not None
    assert union.base.low <= union.base.value <= union.base.high and union.base.n == 12
    paths = write_results(comparison, tmp_path / "evaluation")
    assert sorted(p.name for p in (tmp_path / "evaluation").iterdir()) == sorted(
        p.name for p in paths
    )
    results = json.loads(paths[0].read_text(), parse_constant=pytest.fail)
    assert results["verdict"] == verdict(comparison)
    assert len(results["measurements"]["base"]["scav"]["grid"]) == len(measured.scav.grid)  # type: ignore[union-attr]
    with paths[1].open() as file:
        rows = list(csv.DictReader(file))
    assert set(COLUMNS) == set(rows[0])
    assert {row["model"] for row in rows} == {"base", "tuned"}
    assert {row["attack"] for row in rows} >= {"direct", "scav", "scav_union", "scav_budget"}
    generations = [json.loads(line) for line in paths[2].read_text().splitlines()]
    assert {"model", "attack", "prompt", "output", "outcome"} <= set(generations[0])
    assert len(generations) == len(measured.generations) + len(other.generations)


def test_a_model_against_itself_is_not_called_safer(measured: Measurement) -> None:
    words = " ".join(verdict(compare(measured, replace(measured, model="tuned"))))
    assert "Not safer in the worst case" in words
    assert "nothing that was measured got surely worse" in words


def test_no_layer_above_p1_is_reported_as_such(measured: Measurement, tmp_path: Path) -> None:
    strict = small(scav=Scav(p1=0.9999999), grid=ScavGrid(p1=0.9999999))
    without = strict.measure(tiny_chat_model(), tiny_splits(), model="tuned")
    assert without.scav is None and "no layer above P1" in str(without.no_scav)
    comparison = compare(measured, without)
    row = comparison.row("scav_union", "recovered")
    assert row and row.base and row.tuned is None and row.p_value is None
    assert any("not evidence" in sentence for sentence in verdict(comparison))
    write_results(comparison, tmp_path)
    both = compare(replace(without, model="base"), without)
    assert both.row("scav", "recovered") is None
    assert any("nothing is shown" in sentence for sentence in verdict(both))


def test_prompts_without_answers_or_kinds_leave_their_rows_out() -> None:
    def bare(prompts: PromptSet) -> PromptSet:
        kept = prompts.of("harmful", "harmless")
        return PromptSet(tuple(replace(p, response=None) for p in kept))

    splits = tiny_splits()
    splits = PromptSplits(bare(splits.train), bare(splits.validation), bare(splits.test))
    measured = small(judge=KeywordJudge()).measure(tiny_chat_model(), splits, model="base")
    assert measured.judge == "keyword_strict"
    comparison = compare(measured, replace(measured, model="tuned"))
    assert comparison.row("direct", "general_answered") is None
    assert comparison.row("direct", "harmless_answered") is not None
    assert verdict(comparison)


def test_a_split_without_harmful_prompts_is_named() -> None:
    splits = tiny_splits()
    splits = replace(splits, validation=PromptSet(splits.validation.harmless))
    with pytest.raises(UserError, match="validation split has no harmful prompts"):
        small().measure(tiny_chat_model(), splits, model="base")


@pytest.mark.parametrize("wrong", [{"harmful_prompts": 0}, {"budgets": [0.0]}])
def test_values_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        small(**wrong)


@pytest.mark.parametrize("wrong", [{"subsets": ["al"]}, {"p0": []}, {"features": []}])
def test_grids_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=rf"grid\.{next(iter(wrong))}"):
        ScavGrid(**wrong)
