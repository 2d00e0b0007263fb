"""Tiny random chat models, and prompts of different lengths for them."""

from __future__ import annotations

import random
from typing import Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from es2_lightning.backbone.chat import ChatRenderer
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits

WORDS = [f"w{i}" for i in range(40)]
Architecture = Literal["llama", "qwen2", "gemma2"]


def tiny_chat_model(architecture: Architecture = "llama", *, seed: int = 0) -> ChatModel:
    """A random model of 4 layers and width 32."""
    special = ["<pad>", "<bos>", "<eos>", "<user>", "<assistant>"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    tokenizer.chat_template = (
        "<bos> {% for m in messages %}<user> {{ m['content'] }} {% endfor %}<assistant>"
    )
    shape = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    match architecture:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**shape))
        case "gemma2":
            config = Gemma2Config(**shape, head_dim=8, query_pre_attn_scalar=8, sliding_window=6)
            model = Gemma2ForCausalLM(config)
    return ChatModel(model.eval(), tokenizer, ChatRenderer(tokenizer, max_length=128))


def tiny_splits(n: int = 12) -> PromptSplits:
    """Prompts of 3 to 12 words; harmful ones end in one of the first five words."""

    def some(split: str) -> PromptSet:
        rng = random.Random(split)
        prompts = []
        for kind in ("harmful", "harmless", "looks_harmful", "general"):
            for _ in range(n):
                words = [rng.choice(WORDS) for _ in range(rng.randint(2, 11))]
                words.append(rng.choice(WORDS[:5] if kind == "harmful" else WORDS[5:]))
                prompts.append(Prompt(" ".join(words), kind, response=rng.choice(WORDS)))
        return PromptSet(tuple(prompts))

    return PromptSplits(train=some("train"), validation=some("validation"), test=some("test"))
