"""The one place that renders a prompt to tokens, and that knows where its last token is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from jinja2 import TemplateError
from torch import Tensor

from es2_lightning.errors import PromptTooLong, UserError
from es2_lightning.prompts.prompt import Prompt, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_FORMAT = "User: {prompt}\nAssistant:"
"""What a tokenizer without a chat template gets; earlier turns before it in the same form, each on
lines of its own, and a system turn first, followed by an empty line."""
Asked = str | Prompt
"""A user's turn alone, or with the conversation before it."""
_TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>[^'"]+)(?P=quote)\s*\)""")
"""How chat templates ask for today's date."""


@dataclass(frozen=True)
class TokenBatch:
    """Prompts, and responses where given, as tokens. B rows, T positions.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, 1 on tokens, 0 on padding.
        response_mask: (B, T) bool, true on the tokens of the response.
        last_prompt_index: (B,) int64, the position of each prompt's last token, which is the last
            token of the chat template's generation prompt.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    last_prompt_index: Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def rows(self, index: slice | Tensor) -> TokenBatch:
        """A part of the rows, as it stands: the padding is kept."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})


class ChatRenderer:
    """Renders prompts with the tokenizer's chat template and generation prompt.

    A tokenizer without a template gets `PLAIN_FORMAT`. The template's text is tokenized without
    special tokens being added, since it holds its own. A template that has no system turn (as
    Gemma 2's, which refuses it) gets the system's text at the beginning of the user's first turn,
    with an empty line between them.

    Args:
        tokenizer: A tokenizer with a padding token.
        max_length: The most tokens a prompt and its response may have.
        system_prompt: Put before every prompt, as the template's system turn; a prompt with a
            system turn of its own keeps that.
        chat_template_kwargs: Handed to the template, such as `enable_thinking`.
        template_date: What a template that asks for today's date is told, YYYY-MM-DD; None: today.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int = 512,
        system_prompt: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        template_date: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.system_prompt = system_prompt
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self.template_date = None if template_date is None else date.fromisoformat(template_date)

    def encode(
        self,
        prompts: Sequence[Asked],
        responses: Sequence[str | None] | None = None,
        *,
        padding_side: Literal["left", "right"] = "right",
        ended: bool = True,
    ) -> TokenBatch:
        """Tokenize prompts, each followed by its response where there is one, and pad them.

        Args:
            prompts: User turns, alone or with the conversation before them.
            responses: Their responses; None where there is none.
            padding_side: Where rows that are shorter than the longest are filled up.
            ended: Whether the responses are whole, with an end-of-turn token; otherwise they are
                beginnings that the model can go on from, and spaces around them are dropped: the
                token that follows brings its own.

        Raises:
            UserError: No prompts, or one is longer than `max_length`.
        """
        if not prompts:
            raise UserError("no prompts were given: at least one is needed")
        parts = self.token_lists(prompts, responses, ended=ended)
        length = max(len(prompt) + len(response) for prompt, response in parts)
        if length > self.max_length:
            raise PromptTooLong(
                f"a prompt has {length} tokens with its response, more than max_length="
                f"{self.max_length}: raise model.max_length or drop the prompt"
            )
        shape = (len(parts), length)
        input_ids = torch.full(shape, int(self.tokenizer.pad_token_id))
        attention_mask = torch.zeros(shape, dtype=torch.long)
        response_mask = torch.zeros(shape, dtype=torch.bool)
        last = torch.empty(len(parts), dtype=torch.long)
        for row, (prompt, response) in enumerate(parts):
            size = len(prompt) + len(response)
            start = 0 if padding_side == "right" else length - size
            input_ids[row, start : start + size] = torch.tensor(prompt + response)
            attention_mask[row, start : start + size] = 1
            response_mask[row, start + len(prompt) : start + size] = True
            last[row] = start + len(prompt) - 1
        return TokenBatch(input_ids, attention_mask, response_mask, last)

    def token_lists(
        self,
        prompts: Sequence[Asked],
        responses: Sequence[str | None] | None = None,
        *,
        ended: bool = True,
    ) -> list[tuple[list[int], list[int]]]:
        """Each prompt's tokens and its response's (empty where there is none), unpadded.

        The arguments are those of `encode`.
        """
        if not prompts:
            return []
        rendered = [self.render(prompt) for prompt in prompts]
        prompt_ids = self.tokenizer(rendered, add_special_tokens=self._plain)["input_ids"]
        if responses is None:
            return [(ids, []) for ids in prompt_ids]
        endings = [
            "" if response is None else self._ending(prompt, response, text, ended)
            for prompt, response, text in zip(prompts, responses, rendered, strict=True)
        ]
        response_ids = self.tokenizer(endings, add_special_tokens=False)["input_ids"]
        return list(zip(prompt_ids, response_ids, strict=True))

    def user_turn_ends(self, prompts: Sequence[Asked]) -> list[int]:
        """How many of each prompt's tokens stand before the end of the user's text.

        What is put in there is the last of the user's turn. A token that goes beyond the end of
        the text, as where a tokenizer joins a full stop and the line break behind it, is not
        counted.
        """
        rendered = [self.render(prompt) for prompt in prompts]
        # Templates may trim the text, and may hold the same words before it.
        stripped = [user_text(prompt).strip() for prompt in prompts]
        cut = [
            text[: text.rfind(words) + len(words)] if words in text else text
            for text, words in zip(rendered, stripped, strict=True)
        ]
        whole_ids = self.tokenizer(rendered, add_special_tokens=self._plain)["input_ids"]
        cut_ids = self.tokenizer(cut, add_special_tokens=self._plain)["input_ids"]
        return [
            next(
                (i for i, (a, b) in enumerate(zip(w, c, strict=False)) if a != b),
                min(len(w), len(c)),
            )
            for w, c in zip(whole_ids, cut_ids, strict=True)
        ]

    def render(self, prompt: Asked) -> str:
        """The prompt's text as the model sees it, up to where its answer begins.

        Raises:
            UserError: The model's chat template refuses the turns.
        """
        if self._plain:
            *before, _ = self._turns(prompt)
            return _plainly(before) + PLAIN_FORMAT.format(prompt=user_text(prompt))
        return self._templated(self._turns(prompt), add_generation_prompt=True)

    def _ending(self, prompt: Asked, response: str, rendered: str, ended: bool) -> str:
        """What follows the rendered prompt when it is answered, or begun to be answered."""
        if not ended:
            beginning = response.strip()
            whole = self._ending(prompt, beginning, rendered, True) if beginning else ""
            # What the template puts before a response, such as a space, stays before it.
            before, found, _ = whole.partition(beginning or " ")
            return before + found if found else beginning
        eos = str(self.tokenizer.eos_token or "")
        if self._plain:
            return f" {response}{eos}"
        whole = self._templated([*self._turns(prompt), Turn("assistant", response)])
        # Some templates render a past answer unlike a fresh one (Qwen3 drops the thinking block).
        return whole[len(rendered) :] if whole.startswith(rendered) else response + eos

    def _turns(self, prompt: Asked) -> list[Turn]:
        """The conversation, the system's turn first where there is one."""
        earlier = list(prompt.turns) if isinstance(prompt, Prompt) else []
        own = bool(earlier) and earlier[0].role == "system"
        if self.system_prompt is not None and not own:
            earlier.insert(0, Turn("system", self.system_prompt))
        return [*earlier, Turn("user", user_text(prompt))]

    def _templated(self, turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> str:
        if turns[0].role == "system" and not self._has_system_turn:
            first = turns[1]
            turns = [Turn(first.role, f"{turns[0].text}\n\n{first.text}"), *turns[2:]]
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                chat_template=self._template(),
                **self.chat_template_kwargs,
            )
        except TemplateError as error:
            roles = ", ".join(turn.role for turn in turns)
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path or 'the model'} refuses a "
                f"conversation of {roles}: {error}"
            ) from error
        return str(text)

    @cached_property
    def _has_system_turn(self) -> bool:
        """Whether the template shows a system turn, and neither refuses nor drops it."""
        word = "system-turn-probe"
        messages = [{"role": "system", "content": word}, {"role": "user", "content": "?"}]
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                chat_template=self._template(),
                **self.chat_template_kwargs,
            )
        except TemplateError:
            return False
        return word in str(rendered)

    def _template(self) -> str:
        """The tokenizer's template, with the date that was set where it asks for today's."""
        template = str(self.tokenizer.get_chat_template())
        day = self.template_date
        if day is None:
            return template
        return _TODAY.sub(lambda asked: repr(day.strftime(asked["format"])), template)

    @property
    def told_date(self) -> date | None:
        """The date that the template is told, today's where none was set; None: it asks for none.

        Templates that ask in another way than Llama's are not seen.
        """
        template = getattr(self.tokenizer, "chat_template", None)
        if not _TODAY.search(str(template)):
            return None
        return self.template_date or date.today()

    @property
    def _plain(self) -> bool:
        return not getattr(self.tokenizer, "chat_template", None)


def asking(prompt: Asked, text: str) -> Asked:
    """The same conversation with another last turn of the user."""
    return prompt.asking(text) if isinstance(prompt, Prompt) else text


def user_text(prompt: Asked) -> str:
    """The user's last turn."""
    return prompt.text if isinstance(prompt, Prompt) else prompt


def words_of(prompt: Asked) -> str:
    """All that was said, earlier turns included."""
    return prompt.conversation if isinstance(prompt, Prompt) else prompt


def _plainly(turns: Sequence[Turn]) -> str:
    """Earlier turns in the form of `PLAIN_FORMAT`."""
    names = {"system": "{}\n\n", "user": "User: {}\n", "assistant": "Assistant: {}\n"}
    return "".join(names[turn.role].replace("{}", turn.text) for turn in turns)
