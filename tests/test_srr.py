"""SRR in use: the best of several samples, by rank_responses and in place of generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from es2_lightning.backbone.generation import generate
from es2_lightning.backbone.ranker import ResponseRanker
from es2_lightning.backbone.response_states import response_states, state_reading
from es2_lightning.errors import UserError
from es2_lightning.srr import ChatModel, RankedGeneration, rank_batch, rank_responses

from .tiny_models import tiny_chat_model

PROMPTS = ["w1 w2", "w3 w4 w5 w6 w7", "w8"]


def random_ranker(chat_model: ChatModel, token: Any = "last") -> ResponseRanker:
    torch.manual_seed(1)
    return ResponseRanker(state_reading(chat_model, layer=2, response_token=token)).eval()


def test_responses_come_best_first() -> None:
    chat_model = tiny_chat_model()
    ranker = random_ranker(chat_model)
    ranked = rank_batch(chat_model, ranker, PROMPTS, 5, max_new_tokens=6, seed=3)
    sampled = generate(
        chat_model, PROMPTS, max_new_tokens=6, temperature=1.0, num_return_sequences=5, seed=3
    )
    for number, found in enumerate(ranked):
        own = sampled[number * 5 : number * 5 + 5]
        assert sorted(found.responses) == sorted(own) and len(set(own)) > 1
        assert list(found.scores) == sorted(found.scores, reverse=True)
        scores = ranker.scores(response_states(chat_model, [(PROMPTS[number], own)], layer=2))
        assert found.scores == pytest.approx(sorted(scores[0].tolist(), reverse=True), abs=1e-4)
        assert found.best == own[int(scores[0].argmax())]
    alone = rank_responses(chat_model, ranker, PROMPTS[1], 5, max_new_tokens=6, seed=3)
    assert alone.responses == ranked[1].responses


def test_with_a_margin_the_first_sample_gives_way_to_clearly_better_ones_alone() -> None:
    chat_model = tiny_chat_model()
    ranker, words = random_ranker(chat_model), {"max_new_tokens": 6, "seed": 3}
    plain = rank_batch(chat_model, ranker, PROMPTS, 5, **words)
    first = generate(chat_model, PROMPTS, temperature=1.0, num_return_sequences=5, **words)[::5]
    gaps = [
        found.scores[0] - found.scores[found.responses.index(text)]
        for found, text in zip(plain, first, strict=True)
    ]
    assert max(gaps) > 0
    for margin in (max(gaps) * 0.9, max(gaps) * 1.1):
        chosen = rank_batch(chat_model, ranker, PROMPTS, 5, margin=margin, **words)
        for number, found in enumerate(chosen):
            stays = gaps[number] < margin
            assert found.best == (first[number] if stays else plain[number].best)
            assert sorted(found.scores) == sorted(plain[number].scores)


def encoded(chat_model: ChatModel) -> dict[str, torch.Tensor]:
    batch = chat_model.renderer.encode(PROMPTS, padding_side="left")
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


@pytest.mark.parametrize("token", ["last", "end_of_turn"])
def test_it_stands_in_for_generate(token: Any) -> None:
    chat_model = tiny_chat_model()
    model, tokenizer = chat_model.model, chat_model.tokenizer
    # A chat model says no special tokens; a random one does.
    words = {"max_new_tokens": 6, "suppress_tokens": [0, 1, 3, 4, 5]}
    ranker = random_ranker(chat_model, token)
    ranked = RankedGeneration(model, tokenizer, ranker, num_candidates=4)
    inputs = encoded(chat_model)
    torch.manual_seed(0)
    every = model.generate(**inputs, **words, do_sample=True, num_return_sequences=4)
    torch.manual_seed(0)
    first = ranked.generate(**inputs, **words)
    torch.manual_seed(0)
    two = ranked(inputs["input_ids"], attention_mask=inputs["attention_mask"], **words,
                 num_return_sequences=2)  # fmt: skip
    assert first.shape[0] == 3 and two.shape[0] == 6

    start = inputs["input_ids"].shape[1]
    texts = tokenizer.batch_decode(every[:, start:], skip_special_tokens=True)
    lists = [(prompt, texts[i * 4 : i * 4 + 4]) for i, prompt in enumerate(PROMPTS)]
    order = ranker.scores(
        response_states(chat_model, lists, layer=2, response_token=token)
    ).argsort(dim=1, descending=True, stable=True)
    assert any(int(best) != 0 for best in order[:, 0])
    for b in range(3):
        best = [every[b * 4 + int(i)] for i in order[b, :2]]
        for row, expected in (
            (first[b], best[0]),
            (two[2 * b], best[0]),
            (two[2 * b + 1], best[1]),
        ):
            assert torch.equal(row, expected[: len(row)])
            assert (expected[len(row) :] == tokenizer.pad_token_id).all()

    torch.manual_seed(0)
    model.generate = ranked
    assert torch.equal(model.generate(**inputs, **words), first)
    assert ranked.config is model.config


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"do_sample": False}, "greedy candidates are all alike"),
        ({"num_beams": 4}, "candidates are sampled, not searched for"),
        ({"num_return_sequences": 5}, r"accepted is 1 … num_candidates=4"),
        ({"return_dict_in_generate": True}, "what is returned are token ids"),
        ({"input_ids": None}, "accepted is input_ids"),
    ],
)
def test_words_that_leave_no_choice_are_refused(words: dict[str, Any], told: str) -> None:
    chat_model = tiny_chat_model()
    ranked = RankedGeneration(
        chat_model.model, chat_model.tokenizer, random_ranker(chat_model), num_candidates=4
    )
    with pytest.raises(UserError, match=told):
        ranked.generate(**{**encoded(chat_model), **words})


def test_a_ranker_of_another_model_is_refused() -> None:
    chat_model = tiny_chat_model()
    ranker = random_ranker(tiny_chat_model(num_hidden_layers=5))
    for wrong in (
        lambda: rank_responses(chat_model, ranker, "w1"),
        lambda: RankedGeneration(chat_model.model, chat_model.tokenizer, ranker),
    ):
        with pytest.raises(UserError, match=r"a model of 5 layers and width 32; this one has 4"):
            wrong()
    with pytest.raises(UserError, match="num_candidates=0"):
        rank_responses(chat_model, random_ranker(chat_model), "w1", 0)
