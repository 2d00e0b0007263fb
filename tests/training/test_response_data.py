"""What methods that teach responses read of the prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from es2_lightning.errors import UserError
from es2_lightning.evaluation.judges.judge import outcome_of
from es2_lightning.evaluation.judges.keyword import KeywordJudge
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.organism.answers import REFUSALS as OF_THE_ORGANISM
from es2_lightning.organism.prompts import OrganismPrompts
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits
from es2_lightning.prompts.refusals import REFUSALS, refusal_of
from es2_lightning.prompts.sources import MixedPrompts
from es2_lightning.training.response_data import CircuitBreakerDataModule, ResponseDataModule

from ..tiny_models import tiny_chat_model, tiny_splits
from .tiny_methods import with_refusals


def connected(
    splits: PromptSplits, kind: type[ResponseDataModule] = ResponseDataModule
) -> ResponseDataModule:
    data = kind(splits, harmless_per_batch=4, harmful_per_batch=3, use_responses=False, seed=0)
    data.connect(tiny_chat_model().renderer)
    return data


def without(splits: PromptSplits, kind: str, *, every: int = 1) -> PromptSplits:
    """Every so many prompts of a kind lose their response."""

    def some(prompts: PromptSet) -> PromptSet:
        return PromptSet(
            tuple(
                replace(p, response=None) if kind == p.kind and i % every == 0 else p
                for i, p in enumerate(prompts.prompts)
            )
        )

    return PromptSplits(
        train=some(splits.train), validation=some(splits.validation), test=splits.test
    )


@pytest.mark.parametrize("refusal", REFUSALS)
def test_our_refusals_are_taken_for_refusals(refusal: str) -> None:
    assert outcome_of(KeywordJudge(), Prompt("?", "harmful"), refusal) is Outcome.REFUSED


def test_a_prompt_without_a_refusal_gets_one_of_ours_and_always_the_same() -> None:
    prompts = [Prompt(f"harmful prompt {i}", "harmful") for i in range(60)]
    assert [refusal_of(p) for p in prompts] == [refusal_of(p) for p in prompts]
    assert {refusal_of(p) for p in prompts} == set(REFUSALS)
    assert refusal_of(replace(prompts[0], refusal="No.")) == "No."


def test_the_organism_brings_its_own_refusals_and_placeholders() -> None:
    harmful = OrganismPrompts(train_harmful=30, train_harmless=30).load().train.harmful
    assert {p.refusal for p in harmful} == set(OF_THE_ORGANISM)
    assert all(p.response is not None and "placeholder" in p.response for p in harmful)


def test_columns_of_refusals_and_completions(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}", "no": f"no {i}", "yes": f"yes {i}"} for i in range(40)]
    for name in ("harmful", "harmless"):
        text = "".join(json.dumps(r | {"prompt": f"{name} {r['prompt']}"}) + "\n" for r in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    splits = MixedPrompts(
        harmful={"path": str(tmp_path / "harmful.jsonl"), "refusal": "no", "response": "yes"},
        harmless={"path": str(tmp_path / "harmless.jsonl"), "response": "yes"},
    ).load()
    for prompt in splits.train.harmful:
        number = prompt.text.split()[-1]
        assert (prompt.refusal, prompt.response) == (f"no {number}", f"yes {number}")
    assert all(p.refusal is None and p.response is not None for p in splits.train.harmless)


def test_harmless_prompts_without_an_answer_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    splits = with_refusals(without(tiny_splits(), "harmless", every=2))
    data = connected(splits)
    assert "6 of 36 harmless prompts have no response" in caplog.text
    plan = data.train_dataloader()
    rows = [row for _ in range(4) for batch in plan for row in batch.rows]
    assert all(row.output_positions[-1] == len(row.token_ids) - 2 for row in rows)
    assert len({row.token_ids for row in rows if row.output_positions}) <= 12 + 30


def test_what_is_broken_is_the_completion_alone() -> None:
    data = connected(with_refusals(tiny_splits()), CircuitBreakerDataModule)
    train = data.splits.train
    batch = data.collate(train.harmless[:2], train.harmful[:3])
    assert batch.harmful == (False,) * 5 + (True,) * 3
    renderer = tiny_chat_model().renderer
    for row, prompt in zip(batch.rows[5:], train.harmful, strict=False):
        ((head, tail),) = renderer.token_lists([prompt], [prompt.response])
        assert row.token_ids == (*head, *tail)
        assert row.output_positions == tuple(range(len(row.token_ids)))


def test_no_answers_and_no_completions_are_told_before_a_model_loads() -> None:
    splits = with_refusals(tiny_splits())
    bare = splits
    for kind in ("harmless", "looks_harmful", "general"):
        bare = without(bare, kind)
    with pytest.raises(UserError, match=r"data\.source\.harmless\.response"):
        connected(bare)
    with pytest.raises(UserError, match=r"data\.source\.harmful\.response"):
        connected(without(splits, "harmful"), CircuitBreakerDataModule)
