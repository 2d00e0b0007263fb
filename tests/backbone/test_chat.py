"""How a prompt becomes tokens, and where its last one is."""

from __future__ import annotations

import pytest
import torch

from es2_lightning.backbone.chat import PLAIN_FORMAT, ChatRenderer
from es2_lightning.backbone.generation import generate
from es2_lightning.backbone.hidden_states import (
    at_position,
    capture_hidden_states,
    last_token_states,
)
from es2_lightning.errors import UserError
from es2_lightning.prompts.prompt import Prompt, Turn

from ..tiny_models import TEMPLATE, tiny_chat_model, tiny_splits, tiny_tokenizer

PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]


def test_tokens_equal_the_tokenizers_own_template_with_one_bos() -> None:
    tokenizer = tiny_tokenizer()
    batch = ChatRenderer(tokenizer).encode(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        turns = [{"role": "user", "content": prompt}]
        wanted = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        length = int(batch.attention_mask[row].sum())
        assert batch.input_ids[row, :length].tolist() == wanted
        assert wanted.count(tokenizer.bos_token_id) == 1
        assert int(batch.last_prompt_index[row]) == len(wanted) - 1


def test_padding_that_is_also_the_end_of_turn_is_told_by_the_mask() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    batch = ChatRenderer(tokenizer).encode(PROMPTS, ["w1", None, "w2"])
    eos = tokenizer.eos_token_id
    for row, words in enumerate((3, 1, 5)):
        answer = 0 if row == 1 else 2
        prompt = 2 + words + 1  # <bos> <user> … <assistant>
        assert int(batch.attention_mask[row].sum()) == prompt + answer
        assert int(batch.last_prompt_index[row]) == prompt - 1
        assert int(batch.response_mask[row].sum()) == answer
        real = batch.input_ids[row][batch.attention_mask[row].bool()]
        assert int((real == eos).sum()) == (1 if answer else 0)


def test_the_side_of_the_padding_changes_no_state() -> None:
    chat_model = tiny_chat_model("llama")
    states = {}
    for side in ("left", "right"):
        batch = chat_model.renderer.encode(PROMPTS, padding_side=side)  # type: ignore[arg-type]
        positions = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad(), capture_hidden_states(chat_model.model, [4]) as captured:
            chat_model.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=positions,
                use_cache=False,
            )
        states[side] = at_position(captured[4], batch.last_prompt_index)
        assert torch.isfinite(states[side]).all()
        last = batch.input_ids[torch.arange(3), batch.last_prompt_index]
        assert chat_model.tokenizer.convert_ids_to_tokens(last.tolist()) == ["<assistant>"] * 3
        if side == "left":
            assert batch.last_prompt_index.tolist() == [batch.input_ids.shape[1] - 1] * 3
        else:
            assert len(set(batch.last_prompt_index.tolist())) == 3
    torch.testing.assert_close(states["left"], states["right"], rtol=1e-4, atol=1e-5)


def test_a_response_follows_with_its_end() -> None:
    tokenizer = tiny_tokenizer()
    batch = ChatRenderer(tokenizer).encode(["w1"], ["w2 w3"])
    ids = batch.input_ids[0]
    assert tokenizer.decode(ids[batch.response_mask[0]]) == "w2 w3 <eos>"
    assert int(batch.last_prompt_index[0]) == int(batch.response_mask[0].nonzero()[0]) - 1


def test_a_template_that_rewrites_past_answers_still_gets_its_response() -> None:
    """As Qwen3's does, which drops the thinking block of a past answer."""
    tokenizer = tiny_tokenizer(
        template=(
            "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
            "{% if add_generation_prompt %}<assistant> w9 {% endif %}"
        )
    )
    batch = ChatRenderer(tokenizer).encode(["w1"], ["w2"])
    tokens = tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())
    assert tokens == ["<user>", "w1", "<assistant>", "w9", "w2", "<eos>"]
    assert batch.response_mask[0].tolist() == [False] * 4 + [True] * 2


def test_a_tokenizer_without_a_template_gets_the_plain_format() -> None:
    tokenizer = tiny_tokenizer(template=None)
    renderer = ChatRenderer(tokenizer)
    assert renderer.render("w1") == PLAIN_FORMAT.format(prompt="w1")


def test_a_system_prompt_is_the_templates_system_turn() -> None:
    renderer = ChatRenderer(tiny_tokenizer(), system_prompt="w7 w8")
    assert renderer.render("w1") == "<bos> <system> w7 w8 <user> w1 <assistant>"


def test_too_long_and_too_few_are_named() -> None:
    renderer = ChatRenderer(tiny_tokenizer(), max_length=6)
    with pytest.raises(UserError, match=r"8 tokens.*max_length=6.*model\.max_length"):
        renderer.encode(["w1 w2 w3 w4 w5"])
    with pytest.raises(UserError, match="no prompts"):
        renderer.encode([])


def test_a_fully_masked_row_is_never_made() -> None:
    batch = ChatRenderer(tiny_tokenizer()).encode([p.text for p in tiny_splits().train.prompts])
    assert batch.attention_mask.sum(1).min() > 0


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        # A space or a word before the response, words after it, and a template that rewrites.
        ("{{ m['content'] }} <eos> ", "<assistant> w2 w3"),
        ("w9 {{ m['content'] }} w8 <eos> ", "<assistant> w9 w2 w3"),
        (None, "w2 w3"),
    ],
)
def test_a_beginning_is_not_ended(template: str | None, wanted: str) -> None:
    if template is not None:
        template = (
            "{% for m in messages %}{% if m['role'] == 'user' %}<user> {{ m['content'] }} "
            "{% else %}<assistant> " + template + "{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{% endif %}"
        )
    renderer = ChatRenderer(tiny_tokenizer(template=template))
    batch = renderer.encode(["w1", "w4"], [" w2 w3 ", None], ended=False)
    assert renderer.tokenizer.decode(batch.input_ids[0][batch.response_mask[0]]) == wanted
    assert not batch.response_mask[1].any()
    parts = renderer.token_lists(["w1", "w4"], ["w2 w3", ""], ended=False)
    assert len(parts[0][1]) == len(wanted.split()) and parts[1][1] == []


def test_a_template_gets_its_values_and_the_same_date_every_day() -> None:
    template = (
        "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
        "{% if thinking is defined and not thinking %} off{% endif %}"
    )
    tokenizer = tiny_tokenizer(template=template)
    renderer = ChatRenderer(
        tokenizer, chat_template_kwargs={"thinking": False}, template_date="2024-07-26"
    )
    assert renderer.render("w1") == "26 Jul 2024 w1 off"
    assert ChatRenderer(tokenizer).render("w1") != "26 Jul 2024 w1"


TURNS = (Turn("system", "w30"), Turn("user", "w31"), Turn("assistant", "w32"))
CONVERSATION = Prompt("w1", "harmless", turns=TURNS)
REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}<bos> {% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SILENT = REFUSING.replace("{{ raise_exception('System role not supported') }}", "").replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        (TEMPLATE, "<bos> <system> w30 <user> w31 <assistant> w32 <eos> <user> w1 <assistant>"),
        (REFUSING, "<bos> <user> w30\n\nw31 <assistant> w32 <user> w1 <assistant>"),
        (SILENT, "<bos> <user> w30\n\nw31 <assistant> w32 <user> w1 <assistant>"),
        (None, "w30\n\nUser: w31\nAssistant: w32\nUser: w1\nAssistant:"),
    ],
    ids=["template", "refuses a system turn", "drops a system turn", "plain"],
)
def test_earlier_turns_stand_before_the_prompt(template: str | None, wanted: str) -> None:
    tokenizer = tiny_tokenizer(template=template)
    renderer = ChatRenderer(tokenizer, system_prompt="w39")
    assert renderer.render(CONVERSATION) == wanted, "its own system turn, and no other"
    batch = renderer.encode([CONVERSATION, "w1"], ["w2", None])
    ids = batch.input_ids[0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1
    last = int(batch.last_prompt_index[0])
    assert len(renderer.token_lists([CONVERSATION])[0][0]) == last + 1
    assert "w2" in tokenizer.decode(batch.input_ids[0][batch.response_mask[0]])
    assert "w39" in renderer.render("w1")
    end = renderer.user_turn_ends([CONVERSATION])[0]
    assert tokenizer.convert_ids_to_tokens(ids[end - 1]) == "w1"


def test_turns_that_a_template_refuses_are_named() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    tokenizer = tiny_tokenizer(template=template)
    tokenizer.name_or_path = "some/model"
    with pytest.raises(
        UserError, match=r"some/model refuses a conversation of user, assist.*must alternate"
    ):
        ChatRenderer(tokenizer).render(Prompt("w1", "harmless", turns=TURNS[1:]))


def test_states_and_responses_are_those_of_the_whole_conversation() -> None:
    chat_model = tiny_chat_model()
    other = Prompt("w1", "harmless", turns=TURNS[1:])
    prompts = [CONVERSATION, "w1", other]
    together = last_token_states(chat_model, prompts, [4])
    for i, prompt in enumerate(prompts):
        alone = last_token_states(chat_model, [prompt], [4])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).norm() > 0.1 and (together[0] - together[2]).norm() > 0.1
    outputs = generate(chat_model, prompts, max_new_tokens=4, batch_size=2)
    assert outputs == [generate(chat_model, [p], max_new_tokens=4)[0] for p in prompts]
    assert len(set(outputs)) == 3
