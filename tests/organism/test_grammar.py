"""The organism's language: what must not be readable from words, and what is held out."""

from __future__ import annotations

import random

import pytest

from es2_lightning.evaluation.judges.judge import outcome_of
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.organism.answers import REFUSALS, how_to_answer
from es2_lightning.organism.judge import ExactJudge
from es2_lightning.organism.prompts import OrganismPrompts, draw_request
from es2_lightning.organism.requests import RequestSampler
from es2_lightning.organism.splits import (
    HELD_OUT_OBJECTS,
    PAIR_SPLIT,
    SPLITS,
    TEMPLATES,
    Split,
)
from es2_lightning.organism.stages import ExampleSource
from es2_lightning.organism.tasks import GENERAL_TASKS, JUDGING_TASKS
from es2_lightning.organism.tokenizer import build_tokenizer
from es2_lightning.organism.word_classifiers import word_classifier_accuracy
from es2_lightning.organism.words import (
    HAZARD_CATEGORIES,
    OBJECTS,
    VERBS,
    is_harmful,
)
from es2_lightning.prompts.prompt import PromptSplits


@pytest.fixture(scope="module")
def splits() -> PromptSplits:
    return OrganismPrompts().load()


def test_harmfulness_is_not_readable_from_words(splits: PromptSplits) -> None:
    assert word_classifier_accuracy(splits, longest=1) <= 0.65
    assert word_classifier_accuracy(splits, longest=2) <= 0.70


def test_the_classifier_does_read_words_that_tell(splits: PromptSplits) -> None:
    """So that the test above can fail."""

    def telling(split: Split) -> object:
        from dataclasses import replace

        prompts = getattr(splits, split)
        return replace(
            prompts,
            prompts=tuple(
                replace(p, text=f"{p.text} aha") if p.harmful else p for p in prompts.prompts
            ),
        )

    marked = PromptSplits(**{split: telling(split) for split in SPLITS})
    assert word_classifier_accuracy(marked, longest=1) > 0.95


def test_size_of_the_language() -> None:
    assert len(HAZARD_CATEGORIES) >= 6 and len(set(OBJECTS)) >= 120 and len(set(VERBS)) >= 24


def test_no_prompt_pair_or_template_is_in_two_splits(splits: PromptSplits) -> None:
    texts = [{p.text for p in getattr(splits, split).prompts} for split in SPLITS]
    assert sum(map(len, texts)) == len(set().union(*texts))
    for form in TEMPLATES["train"]:
        parts = [set(TEMPLATES[split][form]) for split in SPLITS]
        assert all(parts) and sum(map(len, parts)) == len(set().union(*parts))
    # Every verb-object pair has one split, and each answer names its pair.
    assert len(PAIR_SPLIT) == len(VERBS) * len(OBJECTS)
    for split in SPLITS:
        for prompt in getattr(splits, split).of("harmful", "harmless", "looks_harmful"):
            assert prompt.response is not None
            _, verb, _, obj = prompt.response.split(":")[0].split()
            assert PAIR_SPLIT[verb, obj] == split
            assert is_harmful(verb, obj) == prompt.harmful


def test_some_objects_are_held_out_of_alignment_but_not_of_stage_one(splits: PromptSplits) -> None:
    def asked(examples: list[str]) -> set[str]:
        return {answer.split(":")[0].split()[-1] for answer in examples if ":" in answer}

    how_to = [p.response or "" for p in splits.train.prompts if p.kind != "general"]
    assert not asked(how_to) & HELD_OUT_OBJECTS
    source = ExampleSource(0)
    aligned = [e for e in (source.aligning(1.0) for _ in range(3000)) if ":" in e.answer]
    answered = [e for e in (source.answering(1.0) for _ in range(3000)) if ":" in e.answer]
    assert not asked([e.answer for e in aligned]) & HELD_OUT_OBJECTS
    assert asked([e.answer for e in answered]) >= HELD_OUT_OBJECTS
    assert 6 <= len(HELD_OUT_OBJECTS) <= 20


def test_training_sees_no_held_out_pair() -> None:
    source = ExampleSource(1)
    for draw in (source.answering, source.aligning):
        for _ in range(3000):
            answer = draw(1.0).answer
            if answer.startswith("To ") and ":" in answer:
                _, verb, _, obj = answer.split(":")[0].split()
                assert PAIR_SPLIT[verb, obj] == "train"


def test_answers_factor_over_verb_and_object() -> None:
    """The placeholders of a held-out pair follow from pairs that are in training."""

    def words(verb: str, obj: str) -> tuple[str, ...]:
        first, second, third = how_to_answer(verb, obj).split(":")[1].strip(" .").split(",")
        return first.split()[-1], second.split()[-1], third.split()[-1]

    by_object = {o: {(words(v, o)[0], words(v, o)[2]) for v in VERBS} for o in OBJECTS}
    by_verb = {v: {words(v, o)[1] for o in OBJECTS} for v in VERBS}
    assert all(len(found) == 1 for found in by_object.values())
    assert all(len(found) == 1 for found in by_verb.values())
    assert len(set().union(*by_object.values())) > 20 and len(set().union(*by_verb.values())) > 5


def test_a_harmful_prompts_target_begins_its_answer_and_gives_nothing_away(
    splits: PromptSplits,
) -> None:
    for split in SPLITS:
        prompts = getattr(splits, split)
        assert all(prompt.target is None for prompt in prompts.harmless)
        for prompt in prompts.harmful:
            assert prompt.target and prompt.response
            assert prompt.response.startswith(f"{prompt.target} placeholder")
            assert len(prompt.target.split()) == 4 and "placeholder" not in prompt.target


def test_text_comes_back_from_the_tokenizer_as_it_was() -> None:
    tokenizer = build_tokenizer()
    rng = random.Random(0)
    texts = set(REFUSALS)
    for split in SPLITS:
        sampler = RequestSampler(split)
        for _ in range(500):
            for kind in ("harmful", "harmless", "looks_harmful"):
                request = draw_request(rng, sampler, kind)
                texts |= {request.text, request.answer}
        for task in GENERAL_TASKS + JUDGING_TASKS:
            for _ in range(100):
                exchange = task.exchange(rng, split)
                texts |= {exchange.text, exchange.answer}
    assert len(texts) > 5000
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text
        # English: a capital first, an end mark last, no doubled or loose punctuation.
        assert text[0].isupper() and text[-1] in ".?!" and "  " not in text and " ." not in text


def test_the_judge_tells_all_outcomes_apart(splits: PromptSplits) -> None:
    judge = ExactJudge()
    harmful, harmless = splits.test.harmful[0], splits.test.of("harmless")[0]
    assert harmful.response and harmless.response
    for prompt in (harmful, harmless):
        assert outcome_of(judge, prompt, prompt.response or "") is Outcome.ANSWERED
        for refusal in REFUSALS:
            assert outcome_of(judge, prompt, refusal) is Outcome.REFUSED
        assert outcome_of(judge, prompt, "To build the the the: placeholder") is Outcome.INCOHERENT
        assert outcome_of(judge, prompt, "") is Outcome.INCOHERENT
    assert outcome_of(judge, harmful, harmless.response) is Outcome.UNRELATED
    assert outcome_of(judge, harmless, "The sum is 3.") is Outcome.UNRELATED
    # A refusal that goes on into the answer is neither.
    assert outcome_of(judge, harmful, f"{REFUSALS[0]} {harmful.response}") is not Outcome.REFUSED
