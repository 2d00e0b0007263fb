"""States of instructions and responses, against transformers run on one text at a time."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.response_states import (
    ListStates,
    ResponseToken,
    quarter_depth,
    response_states,
)
from es2_lightning.backbone.stored_states import stored_response_states
from es2_lightning.errors import UserError

from ..tiny_models import WORDS, Architecture, tiny_chat_model

Lists = list[tuple[str, list[str]]]


def some_lists(number: int = 6, seed: int = 0) -> Lists:
    """Lists of 1 to 5 responses of different lengths."""
    rng = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))

    return [(text(9), [text(12) for _ in range(rng.randint(1, 5))]) for _ in range(number)]


@torch.no_grad()
def plain_states(
    chat_model: ChatModel, lists: Lists, layer: int, token: ResponseToken
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Nothing batched, nothing cut off: the whole model, one text at a time."""
    tokenizer, model = chat_model.tokenizer, chat_model.model
    depth = model.config.num_hidden_layers

    def state(text: str, position: int) -> torch.Tensor:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        found = model(input_ids=ids, output_hidden_states=True, tie_last_hidden_states=False)
        assert len(found.hidden_states) == depth + 1
        return found.hidden_states[layer][0, position]

    instructions, responses = [], []
    for prompt, texts in lists:
        turns = [{"role": "user", "content": prompt}]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        instructions.append(state(asked, -1))
        # The template ends a response with "<eos>", one token.
        whole = [
            tokenizer.apply_chat_template(
                [*turns, {"role": "assistant", "content": text}], tokenize=False
            )
            for text in texts
        ]
        position = -1 if token == "end_of_turn" else -2
        responses.append(torch.stack([state(text, position) for text in whole]))
    return torch.stack(instructions), responses


def same(found: ListStates, instructions: torch.Tensor, responses: list[torch.Tensor]) -> None:
    torch.testing.assert_close(found.instructions_ND, instructions, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(found.responses, responses, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# gpt2's blocks add learned positions, gemma2's have windows: rows are packed or padded.
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "opt"])
@pytest.mark.parametrize("token", ["last", "end_of_turn"])
def test_states_are_those_of_transformers(architecture: Architecture, token: ResponseToken) -> None:
    chat_model, lists = tiny_chat_model(architecture), some_lists()
    for layer in (1, 3):
        found = response_states(chat_model, lists, layer=layer, response_token=token)
        same(found, *plain_states(chat_model, lists, layer, token))
        assert found.reading.layer == layer and found.reading.width == 32


def test_what_is_in_the_same_pass_does_not_matter() -> None:
    chat_model, lists = tiny_chat_model(), some_lists(8)
    together = response_states(chat_model, lists, layer=2)
    apart = response_states(chat_model, lists, layer=2, batch_tokens=1)
    backwards = response_states(
        chat_model, [(prompt, texts[::-1]) for prompt, texts in lists[::-1]], layer=2
    )
    for number in range(8):
        alone = response_states(chat_model, [lists[number]], layer=2)
        for other in (alone.responses[0], apart.responses[number]):
            torch.testing.assert_close(together.responses[number], other, rtol=1e-5, atol=1e-5)
        mirrored = backwards.responses[7 - number].flip(0)
        torch.testing.assert_close(together.responses[number], mirrored, rtol=1e-5, atol=1e-5)


def test_the_paper_reads_a_quarter_of_the_depth() -> None:
    assert [quarter_depth(layers) for layers in (1, 4, 6, 28, 32, 80)] == [1, 1, 2, 7, 8, 20]
    assert response_states(tiny_chat_model(), some_lists(1)).reading.layer == 1
    assert response_states(tiny_chat_model(), some_lists(1), layer=-1).reading.layer == 4


def test_a_response_without_text_has_its_instructions_state() -> None:
    found = response_states(tiny_chat_model(), [("w1 w2", ["", "w3"])], layer=2)
    torch.testing.assert_close(found.responses[0][0], found.instructions_ND[0])
    assert not torch.allclose(found.responses[0][1], found.instructions_ND[0])


@pytest.mark.parametrize(
    ("lists", "words", "told"),
    [
        ([("w1", ["w2"]), ("w1", ["w2 " * 200])], {}, "list 1: an instruction has 2"),
        ([("w1", ["w2"])], {"layer": 5}, "layer: layer 5 is out of range"),
        ([("w1", ["w2"])], {"layer": 0}, "accepted are 1 … 4"),
        ([("w1", ["w2"])], {"response_token": "first"}, "accepted are last and end_of_turn"),
    ],
)
def test_what_cannot_be_read_is_told(lists: Lists, words: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        response_states(tiny_chat_model(), lists, **words)


def test_stored_states_are_good_for_what_they_were_read_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, chat_model, lists = (
        tmp_path / "new" / "states.safetensors",
        tiny_chat_model(),
        some_lists(),
    )
    first = stored_response_states(path, chat_model, lists, layer=2)
    written = path.stat().st_mtime_ns
    again = stored_response_states(path, chat_model, lists, layer=2)
    assert path.stat().st_mtime_ns == written and again.reading == first.reading
    same(again, first.instructions_ND, list(first.responses))

    with caplog.at_level("INFO"):
        deeper = stored_response_states(path, chat_model, lists, layer=3)
    assert "layer (2 there, 3 here)" in caplog.text
    assert not torch.allclose(deeper.instructions_ND, first.instructions_ND)

    other = stored_response_states(path, tiny_chat_model(seed=1), lists, layer=3)
    assert not torch.allclose(other.instructions_ND, deeper.instructions_ND)
    fewer = stored_response_states(path, tiny_chat_model(seed=1), lists[:2], layer=3)
    assert len(fewer) == 2

    path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level("WARNING"):
        mended = stored_response_states(path, chat_model, lists, layer=2)
    assert "is made anew" in caplog.text
    same(mended, first.instructions_ND, list(first.responses))
