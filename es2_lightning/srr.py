"""SRR in use (arXiv 2505.15710): sample candidates, rank them by hidden states, return the best.

from es2_lightning.srr import ChatModel, RankedGeneration, load_ranker, rank_responses

ranker = load_ranker("outputs/…/ranker")
chat_model = ChatModel.load("meta-llama/Llama-3.1-8B-Instruct", dtype="bfloat16")
rank_responses(chat_model, ranker, "How do I …?", num_candidates=8).best

ranked = RankedGeneration(model, tokenizer, ranker, num_candidates=8)
ranked.generate(**inputs, max_new_tokens=256)       # in place of model.generate
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from es2_lightning.backbone.chat import Asked, ChatRenderer
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.generation import generate, own_passes
from es2_lightning.backbone.ranker import Ranker
from es2_lightning.backbone.ranker_folder import load_ranker, save_ranker
from es2_lightning.backbone.response_states import (
    TokenizedList,
    response_states,
    state_reading,
    states_of_tokens,
)
from es2_lightning.errors import UserError

__all__ = [
    "ChatModel",
    "RankedGeneration",
    "RankedResponses",
    "load_ranker",
    "rank_batch",
    "rank_responses",
    "save_ranker",
]

REFUSED_WORDS = {
    "inputs_embeds": "candidates are ranked by their tokens: give input_ids",
    "streamer": "nothing can be streamed before all candidates are there",
    "num_beams": "candidates are sampled, not searched for",
    "return_dict_in_generate": "what is returned are token ids",
}
"""Words of `generate` that ranking leaves no room for; falsy values, and num_beams=1, pass."""


@dataclass(frozen=True)
class RankedResponses:
    """Candidates for one prompt, best first; see `margin` of `rank_batch`.

    Attributes:
        responses: The candidates.
        scores: The ranker's, higher is better.
    """

    responses: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def best(self) -> str:
        """What a user should read."""
        return self.responses[0]


def rank_responses(
    model: ChatModel, ranker: Ranker, prompt: Asked, num_candidates: int = 8, **sampling: Any
) -> RankedResponses:
    """`rank_batch` for one prompt."""
    return rank_batch(model, ranker, [prompt], num_candidates, **sampling)[0]


def rank_batch(
    model: ChatModel,
    ranker: Ranker,
    prompts: Sequence[Asked],
    num_candidates: int = 8,
    *,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
    margin: float = 0.0,
) -> list[RankedResponses]:
    """Sample candidates for each of several prompts, and rank them.

    Args:
        model: Frozen; an adapter of its own is fine.
        ranker: Fitted on states of this model.
        prompts: User turns, alone or with the conversation before them.
        num_candidates: For each prompt.
        max_new_tokens: Where a candidate is cut off.
        temperature: Above 0 where there are several candidates.
        batch_size: Candidates sampled at once.
        seed: Of the samples; a prompt's do not depend on the others.
        margin: The first sample stays in front unless another's score is higher by more than
            this. Above 0 it keeps a good first sample from giving way to an outlier.

    Raises:
        UserError: The ranker was fitted on another kind of model, or a prompt is too long.
    """
    if num_candidates < 1:
        raise UserError(f"num_candidates={num_candidates}: accepted is a whole number ≥ 1")
    _require_model(ranker, model)
    texts = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
        num_return_sequences=num_candidates,
        seed=seed,
    )
    lists = [texts[i * num_candidates : (i + 1) * num_candidates] for i in range(len(prompts))]
    states = response_states(
        model,
        list(zip(prompts, lists, strict=True)),
        layer=ranker.reading.layer,
        response_token=ranker.reading.response_token,
    )
    ranked = []
    scores_NM = ranker.scores(states)
    orders_NM = _best_first(scores_NM, margin).tolist()
    for responses, scores_M, order in zip(lists, scores_NM, orders_NM, strict=True):
        ranked.append(
            RankedResponses(
                tuple(responses[i] for i in order), tuple(float(scores_M[i]) for i in order)
            )
        )
    return ranked


class RankedGeneration:
    """Stands in for a transformers model's `generate`: the same words, a better choice.

    Every prompt of a batch gets `num_candidates` samples, in one batch of the model's own
    `generate`; the ranker's first is returned. With `num_return_sequences=k` the first k are, best
    first. Sampling is as the words say (`temperature`, `top_p`, a generation config …), and draws
    from torch's random numbers as `generate` does.

    `model.generate = RankedGeneration(model, …)` works too; anything else is asked of the model.

    Args:
        model: A transformers causal LM, or a peft model around one.
        tokenizer: Its tokenizer.
        ranker: Fitted on states of this model.
        num_candidates: For each prompt.
        margin: See `rank_batch`.

    Raises:
        UserError: The ranker was fitted on another kind of model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        ranker: Ranker,
        *,
        num_candidates: int = 8,
        margin: float = 0.0,
    ) -> None:
        if num_candidates < 1:
            raise UserError(f"num_candidates={num_candidates}: accepted is a whole number ≥ 1")
        self._chat_model = ChatModel(model, tokenizer, ChatRenderer(tokenizer))
        _require_model(ranker, self._chat_model)
        self._ranker = ranker
        self._num_candidates = num_candidates
        self._margin = margin
        self._generate: Callable[..., Tensor] = model.generate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_chat_model"].model, name)

    def __call__(self, *args: Any, **words: Any) -> Tensor:
        """As `generate`."""
        return self.generate(*args, **words)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_return_sequences: int = 1,
        **words: Any,
    ) -> Tensor:
        """Prompts and their best candidates as tokens, as `model.generate` returns them.

        Args:
            inputs: (B, T) prompts, padded on the left, as `input_ids`.
            input_ids: The same by its other name.
            attention_mask: (B, T); None: no padding.
            num_return_sequences: How many candidates of each prompt, best first.
            **words: For `model.generate`.

        Returns:
            (B · num_return_sequences, T + new tokens), padded on the right.

        Raises:
            UserError: A word that ranking leaves no room for.
        """
        self._refuse(words, num_return_sequences)
        prompts_BT = input_ids if inputs is None else inputs
        if prompts_BT is None:
            raise UserError("no prompts were given: accepted is input_ids (B, T)")
        if attention_mask is None:
            attention_mask = torch.ones_like(prompts_BT)
        sequences = self._generate(
            prompts_BT,
            attention_mask=attention_mask,
            num_return_sequences=self._num_candidates,
            **{"do_sample": self._num_candidates > 1, **words},
        )
        new = sequences[:, prompts_BT.shape[1] :]
        lengths = own_passes(self._chat_model.model, new).tolist()
        chosen = self._first(prompts_BT, attention_mask, new, lengths, num_return_sequences)
        longest = prompts_BT.shape[1] + max(lengths[i] for i in chosen)
        return sequences[chosen, :longest]

    def _first(
        self,
        prompts_BT: Tensor,
        mask_BT: Tensor,
        new: Tensor,
        lengths: Sequence[int],
        number: int,
    ) -> list[int]:
        """Which rows the first candidates of each prompt are."""
        renderer, m = self._chat_model.renderer, self._num_candidates
        texts = self._chat_model.tokenizer.batch_decode(
            [row[:length] for row, length in zip(new, lengths, strict=True)],
            skip_special_tokens=True,
        )
        # As a ranker's training lists were tokenized, with the end of turn that a template gives.
        said = [response for _, response in renderer.token_lists(["?"] * len(texts), texts)]
        lists: list[TokenizedList] = [
            (ids[mask].tolist(), said[b * m : (b + 1) * m])
            for b, (ids, mask) in enumerate(zip(prompts_BT, mask_BT.bool(), strict=True))
        ]
        scores_BM = self._ranker.scores(
            states_of_tokens(self._chat_model, lists, reading=self._ranker.reading)
        )
        order_BM = _best_first(scores_BM, self._margin)
        return [b * m + int(i) for b, order in enumerate(order_BM) for i in order[:number]]

    def _refuse(self, words: dict[str, Any], number: int) -> None:
        for word, why in REFUSED_WORDS.items():
            value = words.get(word)
            if value is not None and value is not False and (word, value) != ("num_beams", 1):
                raise UserError(f"{word}={words[word]} with ranked candidates: {why}")
        if words.get("do_sample") is False and self._num_candidates > 1:
            raise UserError(
                f"do_sample=False with num_candidates={self._num_candidates}: greedy candidates "
                "are all alike; accepted is do_sample=True, or num_candidates=1"
            )
        if not 1 <= number <= self._num_candidates:
            raise UserError(
                f"num_return_sequences={number}: accepted is 1 … num_candidates="
                f"{self._num_candidates}"
            )


def _best_first(scores_NM: Tensor, margin: float) -> Tensor:
    """(N, M): which candidates stand first, the first sample lifted by the margin."""
    lifted_NM = scores_NM.clone()
    lifted_NM[:, 0] += margin
    return lifted_NM.argsort(dim=1, descending=True, stable=True)


def _require_model(ranker: Ranker, model: ChatModel) -> None:
    """Raises UserError where a model has not the size of the one that a ranker was fitted on."""
    wanted = ranker.reading
    if wanted.layer <= model.num_layers:
        here = state_reading(model, layer=wanted.layer, response_token=wanted.response_token)
        if here == wanted:
            return
    raise UserError(
        f"the ranker was fitted on a model of {wanted.depth} layers and width {wanted.width}; this "
        f"one has {model.num_layers} layers and width {state_reading(model).width}"
    )
