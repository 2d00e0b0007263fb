"""The organism's word-level tokenizer and its chat template.

The pre-tokenizer marks the spaces (``▁``) and splits punctuation off; the decoder undoes both, so
``decode(encode(text)) == text`` for text whose words are known. Case is kept: a word that starts
a sentence is an entry of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from es2_lightning.organism.answers import REFUSALS, how_to_answer
from es2_lightning.organism.requests import CELLS
from es2_lightning.organism.splits import SPLITS, pairs
from es2_lightning.organism.tasks import GENERAL_TASKS, JUDGING_TASKS
from es2_lightning.organism.templates import IGNORE_LEADS, PREFIXES, REQUEST_FORMS, SUFFIXES
from es2_lightning.organism.words import ALIASES, OBJECTS, PLACEHOLDERS, VERBS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, UNK, BOS, EOS, USER, ASSISTANT = SPECIAL_TOKENS = (
    "<pad>", "<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>",
)  # fmt: skip
SPACE = "▁"
MAX_LENGTH = 512

# The BOS stands in the template and nowhere else: the tokenizer itself adds no special tokens,
# so a rendered prompt that is tokenized again does not get a second one.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|user|>' + message.content | trim -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<|assistant|>' -}}
        {%- generation -%}
            {{- message.content | trim + eos_token -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- raise_exception('Accepted are the roles user and assistant, not ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""


def _empty_tokenizer() -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocab={UNK: 0}, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    return tokenizer


def _every_sentence() -> list[str]:
    """Text that contains every word of the grammar at least once, as it is written there."""
    import random

    sentences = [*PREFIXES, *SUFFIXES, *IGNORE_LEADS, *REFUSALS]
    sentences += [" ".join(words) for words in (ALIASES, OBJECTS, PLACEHOLDERS, VERBS)]
    for templates in REQUEST_FORMS.values():
        sentences += [t.format(verb="make", object="table", alias="zork") for t in templates]
    for split in SPLITS:
        sentences += [how_to_answer(*pairs(split, *cell)[0]) for cell in CELLS.values()]
    # Facts are finite and few: enough draws see them all, and the tests check that no prompt
    # has an unknown word.
    rng = random.Random(0)
    for task in GENERAL_TASKS + JUDGING_TASKS:
        for split in SPLITS:
            for _ in range(300):
                exchange = task.exchange(rng, split)
                sentences += [exchange.text, exchange.answer]
    return sentences


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with the whole vocabulary of the grammar; the same at every call."""
    from tokenizers import models
    from transformers import PreTrainedTokenizerFast

    tokenizer = _empty_tokenizer()
    pieces = {
        piece
        for sentence in _every_sentence()
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(
            tokenizer.normalizer.normalize_str(sentence)
        )
    }
    entries = [*SPECIAL_TOKENS, *sorted(pieces | {SPACE})]
    tokenizer.model = models.WordLevel(
        vocab={entry: index for index, entry in enumerate(entries)}, unk_token=UNK
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja``."""
    tokenizer.save_pretrained(folder)
    # transformers 5 writes the name of its own new base class here; the older name loads in 4
    # and in 5 alike.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n")
