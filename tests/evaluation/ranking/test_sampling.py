"""Candidates: the plain samples of `generate`, whoever stands beside them, and kept when killed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.generation import generate
from es2_lightning.config.location import package_path
from es2_lightning.evaluation.attacks.attack import Attack, Target
from es2_lightning.evaluation.attacks.direct import Direct
from es2_lightning.evaluation.attacks.prefill import Prefill
from es2_lightning.evaluation.attacks.scav import Scav
from es2_lightning.evaluation.attacks.template import Template
from es2_lightning.evaluation.parts import PartsFolder
from es2_lightning.evaluation.ranking.sampling import SampledModel
from es2_lightning.organism.judge import ExactJudge
from es2_lightning.organism.prompts import OrganismPrompts
from es2_lightning.prompts.prompt import Prompt, PromptSplits

TOKENS = 10


@cache
def organism() -> tuple[ChatModel, PromptSplits]:
    """The built-in model and a few prompts."""
    source = OrganismPrompts(
        train_harmful=20, train_harmless=40, validation_per_kind=10, test_per_kind=5
    )
    return ChatModel.load(package_path("organism/checkpoint")), source.load()


def sampled_model(folder: Path, *, batch_size: int = 64, label: str = "base") -> SampledModel:
    chat_model, splits = organism()
    target = Target(chat_model, splits, ExactJudge(), TOKENS, batch_size=batch_size)
    return SampledModel(label, target, "weights", PartsFolder(folder), 1.5)


def sample(
    model: SampledModel, attack: Attack, prompts: tuple[Prompt, ...]
) -> list[tuple[str, ...]]:
    found = model.sample(
        attack, prompts, name="attack", settings={}, num_candidates=3, split="test"
    )
    return [one.responses for one in found]


def test_they_are_what_generate_samples(tmp_path: Path) -> None:
    chat_model, splits = organism()
    prompts = splits.test.harmful
    plain = generate(
        chat_model, prompts, max_new_tokens=TOKENS, temperature=1.5, num_return_sequences=3
    )
    candidates = sample(sampled_model(tmp_path), Direct(), prompts)
    assert [text for own in candidates for text in own] == plain
    begun = sample(sampled_model(tmp_path, label="begun"), Prefill(), prompts)
    wanted = generate(
        chat_model,
        prompts,
        max_new_tokens=TOKENS,
        temperature=1.5,
        num_return_sequences=3,
        prefixes=[p.target for p in prompts],
    )
    assert [text for own in begun for text in own] == wanted


@pytest.mark.parametrize(
    "attack",
    [
        Scav(positions="last_prompt_token"),
        Template(file=package_path("organism/jailbreak_templates.jsonl")),
    ],
    ids=["scav", "template"],
)
def test_neighbours_and_batches_change_nothing(attack: Attack, tmp_path: Path) -> None:
    prompts = organism()[1].test.harmful
    whole = sample(sampled_model(tmp_path / "a"), attack, prompts)
    # A batch of two rows is less than one prompt's candidates.
    single = sample(sampled_model(tmp_path / "b", batch_size=2), attack, prompts[2:3])
    assert whole[2:3] == single and len({*whole}) > 1


class Killed(Exception):
    """Stands for a kill between two batches."""


def test_a_killed_sampling_goes_on(tmp_path: Path) -> None:
    prompts = organism()[1].test.harmful
    whole = sample(sampled_model(tmp_path / "whole", batch_size=3), Prefill(), prompts)
    told: list[int] = []

    def kill(_stage: str, done: int, _total: int) -> None:
        told.append(done)
        if done == 2:
            raise Killed

    model = sampled_model(tmp_path / "killed", batch_size=3)
    model = replace(model, target=replace(model.target, progress=kill))
    with pytest.raises(Killed):
        sample(model, Prefill(), prompts)
    (part,) = (tmp_path / "killed").glob("*.jsonl")
    kept = part.read_bytes()
    assert kept.count(b"\n") == 1 + 2
    # In the middle of a line, as a kill leaves it: that prompt is sampled again.
    part.write_bytes(kept[:-7])
    told.append(-1)
    model = replace(
        model, target=replace(model.target, progress=lambda _s, done, _t: told.append(done))
    )
    assert sample(model, Prefill(), prompts) == whole
    assert told == [1, 2, -1, 2, 3, 4, 5]
    assert sample(model, Prefill(), prompts) == whole and told[-1] == 5 and len(told) == 7
