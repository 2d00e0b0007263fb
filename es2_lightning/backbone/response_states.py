"""Hidden states of instructions and of responses to them: what SRR ranks by (arXiv 2505.15710).

Shape legend: N lists, M responses of the longest list, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from es2_lightning.backbone.chat import Asked, ChatRenderer
from es2_lightning.backbone.chat_model import eval_mode
from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.backbone.list_passes import read_lists
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import PromptTooLong, UserError

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

ResponseToken = Literal["last", "end_of_turn"]
RESPONSE_TOKENS: tuple[ResponseToken, ...] = get_args(ResponseToken)
PASS_TOKENS = 8192
"""The most in one forward pass, padding included."""


@dataclass(frozen=True)
class StateReading:
    """Where states are read, and of what kind of model: a ranker fits states read alike.

    Attributes:
        layer: 1 … L; its block's output.
        response_token: `last`: a response's last token of text, which the paper's words name.
            `end_of_turn`: the special token that the chat template puts behind it; a response that
            was cut off gets one too.
        depth: L.
        width: D.
    """

    layer: int
    response_token: ResponseToken
    depth: int
    width: int


@dataclass(frozen=True)
class ListStates:
    """The states of some instructions, and of each one's responses; float32, on the CPU.

    Attributes:
        instructions_ND: At each instruction's last token: the last of the generation prompt.
        responses: Of each list, (responses of it, D).
        reading: Where they were read.
    """

    instructions_ND: Tensor
    responses: tuple[Tensor, ...]
    reading: StateReading

    def __len__(self) -> int:
        return len(self.responses)

    def lists(self, numbers: Sequence[int]) -> ListStates:
        """Some of the lists, in this order."""
        chosen = torch.tensor(list(numbers), dtype=torch.long)
        return replace(
            self,
            instructions_ND=self.instructions_ND[chosen],
            responses=tuple(self.responses[i] for i in numbers),
        )

    def padded(self, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Responses (N, M, D), with zeros where a list is shorter, and which are there (N, M).

        Args:
            length: M; None: of the longest list.
        """
        longest = max((len(some) for some in self.responses), default=0)
        size = longest if length is None else length
        responses_NMD = self.instructions_ND.new_zeros(len(self), size, self.reading.width)
        present_NM = torch.zeros(len(self), size, dtype=torch.bool)
        for row, some in enumerate(self.responses):
            responses_NMD[row, : len(some)] = some
            present_NM[row, : len(some)] = True
        return responses_NMD, present_NM


def quarter_depth(num_layers: int) -> int:
    """The paper's layer: about a quarter of the depth from the bottom."""
    return max(1, round(num_layers / 4))


def response_states(
    chat_model: ChatModel,
    lists: Sequence[tuple[Asked, Sequence[str]]],
    *,
    layer: int | None = None,
    response_token: ResponseToken = "last",
    batch_tokens: int = PASS_TOKENS,
) -> ListStates:
    """The states that a ranker reads: of each instruction, and of each response in its context.

    An instruction is rendered with the chat template and its generation prompt, a response as the
    template ends a turn. Blocks above the layer and the head are not computed. A response without
    text has, with `response_token="last"`, its instruction's state: nothing was said.

    Args:
        chat_model: Run as it is, adapter and hooks included, in eval mode.
        lists: Instructions, and the responses to each.
        layer: 1 … L, or negative from the end; None: a quarter of the depth.
        response_token: See `StateReading`.
        batch_tokens: The most in one forward pass, padding included.

    Raises:
        UserError: No such layer, or a response is longer than `model.max_length` allows.
    """
    reading = state_reading(chat_model, layer=layer, response_token=response_token)
    tokenized = tokenize_lists(chat_model.renderer, lists)
    limit = chat_model.renderer.max_length
    for number, (prompt, responses) in enumerate(tokenized):
        longest = max([len(prompt), *(len(prompt) + len(response) for response in responses)])
        if longest > limit:
            raise PromptTooLong(
                f"list {number}: an instruction has {longest} tokens with its response, more than "
                f"model.max_length={limit}: raise it or drop the list"
            )
    return states_of_tokens(chat_model, tokenized, reading=reading, batch_tokens=batch_tokens)


def state_reading(
    chat_model: ChatModel, *, layer: int | None = None, response_token: ResponseToken = "last"
) -> StateReading:
    """Where a model's states are to be read; the arguments are those of `response_states`.

    Raises:
        UserError: No such layer, or no such token.
    """
    if response_token not in RESPONSE_TOKENS:
        raise UserError(
            f"response_token={response_token}: accepted are {' and '.join(RESPONSE_TOKENS)}"
        )
    depth = chat_model.num_layers
    number = quarter_depth(depth) if layer is None else resolve_layer(layer, depth, key="layer")
    if number == 0:
        raise UserError(
            "layer=0: the input embeddings say nothing of what stands before a token; "
            f"accepted are 1 … {depth}, or -1 … -{depth} from the end"
        )
    config = chat_model.model.config.get_text_config(decoder=True)
    return StateReading(number, response_token, depth, int(config.hidden_size))


TokenizedList = tuple[Sequence[int], Sequence[Sequence[int]]]
"""An instruction's tokens, and those of each response with the end of its turn."""


def tokenize_lists(
    renderer: ChatRenderer, lists: Sequence[tuple[Asked, Sequence[str]]]
) -> list[TokenizedList]:
    """Lists as tokens, unpadded."""
    asked = [prompt for prompt, responses in lists for _ in (None, *responses)]
    said = [text for _, responses in lists for text in (None, *responses)]
    parts = iter(renderer.token_lists(asked, said))
    tokenized: list[TokenizedList] = []
    for _, responses in lists:
        prompt, _ = next(parts)
        tokenized.append((prompt, [next(parts)[1] for _ in responses]))
    return tokenized


def states_of_tokens(
    chat_model: ChatModel,
    lists: Sequence[TokenizedList],
    *,
    reading: StateReading,
    batch_tokens: int = PASS_TOKENS,
) -> ListStates:
    """The states of lists that are tokens already; see `response_states`."""
    if not lists:
        return ListStates(torch.empty(0, reading.width), (), reading)
    with eval_mode(chat_model.model):
        found = read_lists(
            chat_model,
            [list(_rows(one, chat_model.tokenizer, reading.response_token)) for one in lists],
            layer=reading.layer,
            batch_tokens=batch_tokens,
        )
    return ListStates(
        torch.stack([states[0] for states in found]),
        tuple(states[1:] for states in found),
        reading,
    )


def text_length(response: Sequence[int], tokenizer: object) -> int:
    """How many of a response's tokens are text: those before the end of turn, and before the
    blanks that a template puts there."""
    special = set(tokenizer.all_special_ids)  # type: ignore[attr-defined]
    end = len(response)
    while end and (
        response[end - 1] in special or not str(tokenizer.decode([response[end - 1]])).strip()  # type: ignore[attr-defined]
    ):
        end -= 1
    return end


def _rows(one: TokenizedList, tokenizer: object, token: ResponseToken) -> Iterator[TokenRow]:
    """An instruction and its responses in context, without what stands behind the state read."""
    prompt, responses = one
    yield TokenRow(tuple(prompt), len(prompt) - 1)
    for response in responses:
        last = len(prompt) + _place(response, tokenizer, token)
        yield TokenRow((*prompt, *response)[: last + 1], last)


def _place(response: Sequence[int], tokenizer: object, token: ResponseToken) -> int:
    """Where a response is read, from its first token on; -1 is the prompt's last token."""
    end = text_length(response, tokenizer)
    if token == "last":
        return end - 1
    special = set(tokenizer.all_special_ids)  # type: ignore[attr-defined]
    endings = (i for i in range(end, len(response)) if response[i] in special)
    return next(endings, len(response) - 1)
