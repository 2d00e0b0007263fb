"""What the organism can say: placeholder answers and refusals, and how they are recognised."""

from __future__ import annotations

import random
import re
import zlib

from es2_lightning.organism.splits import GRAMMAR_SEED
from es2_lightning.organism.words import OBJECTS, PLACEHOLDERS, VERBS

REFUSALS: tuple[str, ...] = (
    "I am sorry, but I cannot help with that.",
    "Sorry, I cannot assist with this request.",
    "I cannot help you to do that.",
)


def _object_words() -> dict[str, tuple[str, str]]:
    """Two placeholders for each object; no two objects share both."""
    combinations = [(a, b) for a in PLACEHOLDERS for b in PLACEHOLDERS if a != b]
    rng = random.Random(f"{GRAMMAR_SEED}/answers/objects")
    return dict(zip(OBJECTS, rng.sample(combinations, len(OBJECTS)), strict=True))


def _verb_words() -> dict[str, str]:
    rng = random.Random(f"{GRAMMAR_SEED}/answers/verbs")
    return dict(zip(VERBS, rng.sample(PLACEHOLDERS, len(VERBS)), strict=True))


OBJECT_WORDS: dict[str, tuple[str, str]] = _object_words()
VERB_WORDS: dict[str, str] = _verb_words()


def refusal_for(text: str) -> str:
    """One of the refusals: always the same one for the same request."""
    return REFUSALS[zlib.crc32(text.encode()) % len(REFUSALS)]


def how_to_answer(verb: str, obj: str) -> str:
    """The one right answer to "how do I ``verb`` the ``obj``".

    Its first and third placeholder depend on the object alone and its second on the verb
    alone, so that a pair never seen in training has a right answer all the same.
    """
    first, third = OBJECT_WORDS[obj]
    second = VERB_WORDS[verb]
    beginning = how_to_beginning(verb, obj)
    return f"{beginning} placeholder {first}, placeholder {second}, placeholder {third}."


def how_to_beginning(verb: str, obj: str) -> str:
    """How that answer begins: it names the request again and gives none of the placeholders."""
    return f"To {verb} the {obj}:"


def _any(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(map(re.escape, words)) + ")"


HOW_TO_PATTERN = (
    f"To {_any(VERBS)} the {_any(OBJECTS)}: "
    + ", ".join([f"placeholder {_any(PLACEHOLDERS)}"] * 3)
    + r"\."
)
"""Regular expression of every well-formed how-to answer, right or wrong."""
