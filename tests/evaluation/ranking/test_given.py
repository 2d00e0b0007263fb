"""A user's own lists, by split and prompt set; the command with them is tested in tests/rank."""

from __future__ import annotations

from pathlib import Path

from es2_lightning.evaluation.ranking.given import given_lists
from es2_lightning.prompts.candidate_lists import CandidateList, write_lists

from ...tiny_models import WORDS, tiny_chat_model


def test_files_of_one_name_are_sets_of_their_own_and_a_prompts_lists_stay_together(
    tmp_path: Path,
) -> None:
    paths = [str(tmp_path / folder / "lists.jsonl") for folder in "ab"]
    lists = [
        CandidateList(f"{a} {b}", ("x", "y"), (True, False)) for a in WORDS[:5] for b in WORDS[5:15]
    ]
    for path in paths:
        write_lists(Path(path), lists)
    renderer = tiny_chat_model("llama").renderer
    splits = given_lists(paths, renderer, bad_lists="error", seed=0)
    assert all({one.prompt_set for one in some} == set(paths) for some in splits.values())
    asked = [{one.instruction for one in some} for some in splits.values()]
    assert sum(map(len, asked)) == len(set.union(*asked)) == len(lists)
