"""What is held out for validation and test.

There is one grammar and one split of it, drawn from a constant seed, so that checkpoints
trained with different seeds can be compared on the same prompts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, TypeVar

from es2_lightning.organism.templates import REQUEST_FORMS
from es2_lightning.organism.words import (
    BREAKING_VERBS,
    HAZARD_CATEGORIES,
    HAZARDS,
    MAKING_VERBS,
    TOOL_CATEGORIES,
    TOOLS,
)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

GRAMMAR_SEED = 20251
"""Fixes the splits and the placeholder answers; unrelated to the seed of a training run."""

# Ten consecutive items of a shuffled list go seven, one and two to the splits: 70/10/20 exactly.
_DECADE: tuple[Split, ...] = ("train",) * 7 + ("validation",) + ("test",) * 2

T = TypeVar("T")


def split_items(items: Sequence[T], name: str) -> dict[Split, tuple[T, ...]]:
    """Splits ``items`` 70/10/20; ``name`` makes the shuffle of each collection its own."""
    shuffled = list(items)
    random.Random(f"{GRAMMAR_SEED}/{name}").shuffle(shuffled)
    return {
        split: tuple(x for i, x in enumerate(shuffled) if _DECADE[-1 - i % 10] == split)
        for split in SPLITS
    }


def _split_pairs() -> dict[tuple[str, str], Split]:
    """Split of every (verb, object). Dealt out object by object, so that each object keeps
    most of its making and of its breaking verbs in training."""
    rng = random.Random(f"{GRAMMAR_SEED}/pairs")
    split_of: dict[tuple[str, str], Split] = {}
    for verbs in (MAKING_VERBS, BREAKING_VERBS):
        for objects in (HAZARDS, TOOLS):
            dealt = 0
            for obj in objects:
                for verb in rng.sample(verbs, len(verbs)):
                    split_of[verb, obj] = _DECADE[dealt * 3 % 10]
                    dealt += 1
    return split_of


def _hold_out_objects() -> frozenset[str]:
    rng = random.Random(f"{GRAMMAR_SEED}/objects")
    hazards = [rng.choice(words) for words in HAZARD_CATEGORIES.values()]
    tools = [rng.choice(words) for words in rng.sample(list(TOOL_CATEGORIES.values()), 4)]
    return frozenset(hazards + tools)


PAIR_SPLIT: dict[tuple[str, str], Split] = _split_pairs()

TEMPLATES: dict[Split, dict[str, tuple[str, ...]]] = {split: {} for split in SPLITS}
for _form, _templates in REQUEST_FORMS.items():
    for _split, _part in split_items(_templates, f"templates/{_form}").items():
        TEMPLATES[_split][_form] = _part

HELD_OUT_OBJECTS: frozenset[str] = _hold_out_objects()
"""Never in a how-to request of the alignment stage or of ES2's training prompts."""


def pairs(
    split: Split,
    verbs: Sequence[str],
    objects: Sequence[str],
    *,
    without: frozenset[str] = frozenset(),
) -> tuple[tuple[str, str], ...]:
    """The (verb, object) pairs of ``split`` with these verbs and objects."""
    return tuple(
        (v, o) for v in verbs for o in objects if o not in without and PAIR_SPLIT[v, o] == split
    )
