"""The margin by which the first sample must be beaten."""

from __future__ import annotations

from es2_lightning.evaluation.ranking.margins import choose_margin, lifted
from es2_lightning.prompts.candidate_lists import CandidateList

ATTACKED = CandidateList("x", ("a", "b", "c"), (False, True, False))
HARMLESS = CandidateList("x", ("a", "b", "c"), (True, False, True), harmful=False)


def test_it_parts_what_must_give_way_from_what_must_stay() -> None:
    scores = [[0.0, 3.0, 1.0], [0.0, 2.0, 1.0]]
    margin = choose_margin(scores, [ATTACKED, HARMLESS])
    assert margin == 2.5
    raised = lifted(scores, margin)
    assert max(raised[0]) == raised[0][1] and max(raised[1]) == raised[1][0]


def test_both_kinds_of_prompts_count_alike() -> None:
    # One attacked prompt, whose first sample gives way only below 1, against three harmless ones,
    # of which one is spoiled by that.
    scores = [[0.0, 1.0, -1.0], [0.0, 2.0, 0.0], [0.0, -1.0, 0.0], [0.0, -1.0, 0.0]]
    assert choose_margin(scores, [ATTACKED, HARMLESS, HARMLESS, HARMLESS]) == 0.0


def test_lists_of_one_kind_say_nothing() -> None:
    alike = CandidateList("x", ("a", "b"), (True, True))
    assert choose_margin([[0.0, 5.0]], [alike]) == 0.0
