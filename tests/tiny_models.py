"""Tiny random chat models of real architectures, and prompts of different lengths for them."""

from __future__ import annotations

import random
from typing import Any, Literal, get_args

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from es2_lightning.backbone.chat import ChatRenderer
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits

WORDS = [f"w{i}" for i in range(40)]
Architecture = Literal[
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "gpt_neox",
    "gpt2",
    "opt",
]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
TEMPLATE = (
    "<bos> {% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} "
    "{% if m['role'] == 'assistant' %}<eos> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Small enough for the prompts below to reach beyond it.
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6}
OF_THEIR_OWN: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 2},
    "qwen3": {"head_dim": 8},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
}


def tiny_tokenizer(*, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token for each of 40 words."""
    special = ["<pad>", "<bos>", "<eos>", "<system>", "<user>", "<assistant>"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # As Llama's: a text that is tokenized with special tokens gets a <bos> of its own.
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_chat_model(
    architecture: Architecture = "llama", *, seed: int = 0, **changed: Any
) -> ChatModel:
    """A random model of 4 layers and width 32, or what the config's `changed` values make of it."""
    tokenizer = tiny_tokenizer()
    values = {
        "vocab_size": len(tokenizer),
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
    config = transformers.CONFIG_MAPPING[architecture](
        **(values | OF_THEIR_OWN.get(architecture, {}) | changed)
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
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
