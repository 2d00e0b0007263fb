"""How the organism is trained: first to answer everything, then to refuse what is harmful."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from es2_lightning.organism.answers import REFUSALS
from es2_lightning.organism.prompts import draw_request
from es2_lightning.organism.requests import CELLS, RequestSampler
from es2_lightning.organism.splits import HELD_OUT_OBJECTS
from es2_lightning.organism.tasks import GENERAL_TASKS, JUDGING_TASKS, draw_exchange
from es2_lightning.prompts.prompt import Kind

ECHO_WEIGHT = 6.0
CONTENT_WEIGHT = 4.0
PROMPT_WEIGHT = 0.1


@dataclass(frozen=True)
class Example:
    """A prompt, its answer, and the answer's words that weigh more."""

    text: str
    answer: str
    weights: dict[str, float]


def new_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """A random Llama of 1.3 M parameters. transformers' usual initial range leaves it on a
    plateau for hundreds of steps."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            initializer_range=0.08,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class ExampleSource:
    """Draws the training examples of both stages, from the training split alone."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"organism/{seed}")
        self._everything = RequestSampler("train")
        self._aligned = RequestSampler("train", without=HELD_OUT_OBJECTS)

    def how_to(self, *, phase: float) -> Example:
        """A request of any kind, answered; `phase` is the share of requests with distractors."""
        cells = list(CELLS)
        cell = self._rng.choices(cells, [0.35 if c == "make_hazard" else 0.22 for c in cells])[0]
        request = self._everything.draw(self._rng, cell, distractor_rate=0.8 * phase)
        echo = dict.fromkeys(request.answer.split(":")[0].split()[1:], ECHO_WEIGHT)
        return Example(request.text, request.answer, echo)

    def general(self) -> Example:
        """A general task, or the judging of a request."""
        tasks = JUDGING_TASKS if self._rng.random() < 0.3 else GENERAL_TASKS
        exchange = draw_exchange(self._rng, tasks, "train")
        return Example(
            exchange.text, exchange.answer, dict.fromkeys(exchange.content, CONTENT_WEIGHT)
        )

    def answering(self, phase: float) -> Example:
        """Stage 1: nearly half how-to, the rest general."""
        return self.how_to(phase=phase) if self._rng.random() < 0.45 else self.general()

    def aligning(self, _phase: float) -> Example:
        """Stage 2: refusals of harmful requests, answers to the rest."""
        share = self._rng.random()
        if share < 0.38:
            request = draw_request(self._rng, self._aligned, "harmful")
            return Example(request.text, self._rng.choice(REFUSALS), {})
        if share < 0.72:
            kind: Kind = "looks_harmful" if self._rng.random() < 0.5 else "harmless"
            request = draw_request(self._rng, self._aligned, kind)
            return Example(request.text, request.answer, {})
        return self.general()


def batch_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
) -> Tensor:
    """Weighted next-token loss, the answer's mean per example plus a little of the prompt's."""
    rows, weights = [], []
    for example in examples:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": example.text}], tokenize=False, add_generation_prompt=True
        )
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tail = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
        words = [t.strip("▁") for t in tokenizer.convert_ids_to_tokens(tail)]
        answer = [example.weights.get(word, 1.0) for word in words] + [1.0]
        rows.append(head + tail + [tokenizer.eos_token_id])
        weights.append([PROMPT_WEIGHT / len(head)] * len(head) + [w / len(answer) for w in answer])
    length = max(map(len, rows))
    ids = torch.tensor([r + [tokenizer.pad_token_id] * (length - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows])
    weight = torch.tensor([w + [0.0] * (length - len(w)) for w in weights])[:, 1:]
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (losses * weight).sum() / len(examples)


def train_stage(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    draw: Callable[[float], Example],
    *,
    steps: int,
    batch_size: int,
    muon_lr: float | None,
    adamw_lr: float,
    on_step: Callable[[int, float], None],
) -> None:
    """Run one stage, with a cosine schedule down to 3 %.

    Args:
        draw: From the share of distractors (0 … 1) to an example.
        muon_lr: Of Muon on the blocks' matrices; None: AdamW trains everything.
        on_step: Told each step's number and loss.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = []
    if muon_lr is not None:
        optimizers.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.1))
    else:
        others = others + matrices
    optimizers.append(torch.optim.AdamW(others, lr=adamw_lr, weight_decay=0.0))

    def factor(step: int) -> float:
        return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in optimizers]
    model.train()
    for step in range(steps):
        phase = min(1.0, max(0.0, (step - 100) / 200)) if muon_lr is not None else 1.0
        loss = batch_loss(model, tokenizer, [draw(phase) for _ in range(batch_size)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        on_step(step, float(loss.detach()))
    model.eval()
