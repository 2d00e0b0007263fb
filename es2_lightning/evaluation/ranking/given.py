"""Lists that a user gives instead of sampling, split and fitted to the model's length."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from es2_lightning.errors import UserError
from es2_lightning.prompts.candidate_lists import BadLists, CandidateList, read_lists
from es2_lightning.prompts.normalising import normalise, position
from es2_lightning.prompts.row_files import BadRow

if TYPE_CHECKING:
    from es2_lightning.backbone.chat import ChatRenderer

log = logging.getLogger(__name__)
SPLITS = ("train", "validation", "test")
VALIDATION, TEST = 0.15, 0.25
"""Shares of the instructions, about."""


def given_lists(
    paths: Sequence[str], renderer: ChatRenderer, *, bad_lists: BadLists, seed: int
) -> dict[str, list[CandidateList]]:
    """The lists of some files, by split; each file is a prompt set, by its name.

    A list's split follows from its prompt's words, so that a prompt's lists stay together.

    Args:
        paths: JSONL files.
        renderer: Says how many tokens a response has with its instruction.
        bad_lists: What is done about bad lists, those that are too long for the model among them.
        seed: Of the split.

    Raises:
        UserError: A file or a list cannot be used, or a split is left without lists.
    """
    splits: dict[str, list[CandidateList]] = {split: [] for split in SPLITS}
    stems = [Path(path).stem for path in paths]
    for path, stem in zip(paths, stems, strict=True):
        # Files of the same name are told apart by their folders.
        name = stem if stems.count(stem) == 1 else path
        read = read_lists(path, key="lists", bad_lists=bad_lists, prompt_set=name)
        for found, number in zip(read.lists, read.rows, strict=True):
            length = longest(found, renderer)
            if length > renderer.max_length:
                error = BadRow(
                    path,
                    number,
                    f"a response has {length} tokens with its instruction, more than "
                    f"model.max_length={renderer.max_length}",
                    reason=f"more than model.max_length={renderer.max_length} tokens",
                )
                if bad_lists == "error":
                    raise error
                read.left_out(error)
                continue
            place = position(normalise(found.prompt or found.instruction), seed=seed)
            split = SPLITS[1 if place < VALIDATION else 2 if place < VALIDATION + TEST else 0]
            splits[split].append(found)
        if read.left_out.reasons:
            log.warning(
                "%s: %d lists are left out: %s",
                path,
                read.left_out.reasons.total(),
                read.left_out,
            )
    if empty := [split for split in SPLITS if not splits[split]]:
        raise UserError(
            f"lists: {sum(map(len, splits.values()))} lists leave the {empty[0]} split empty. "
            "Accepted: more lists; about 60 % are trained on, 15 % chosen by, 25 % tested on."
        )
    return splits


def longest(found: CandidateList, renderer: ChatRenderer) -> int:
    """Tokens of the longest response with its instruction."""
    parts = renderer.token_lists([found.asked] * len(found.responses), found.responses)
    return max(len(prompt) + len(response) for prompt, response in parts)
