"""What a study compares, with a ranker that is known."""

from __future__ import annotations

import torch
from torch import Tensor

from es2_lightning.backbone.response_states import ListStates, StateReading
from es2_lightning.evaluation.ranking.listed import Listed
from es2_lightning.evaluation.ranking.results import FIRST, RANKER, TOP1
from es2_lightning.evaluation.ranking.study import RankingStudy
from es2_lightning.prompts.candidate_lists import CandidateList

READING = StateReading(1, "last", depth=2, width=1)
SCORES = [[1.0, 1.4, 0.0, 0.2], [1.0, 1.6, 0.0, 0.2], [0.0, -1.0, -2.0, -3.0]]
SAFE = [(True, False, False, False), (False, True, False, False), (False, True, True, True)]


class _Known:
    """Scores are the states themselves."""

    reading = READING

    def scores(self, states: ListStates) -> Tensor:
        return states.padded()[0][..., 0]


def test_the_first_sample_gives_way_to_clearly_better_ones_alone() -> None:
    lists = tuple(
        CandidateList(f"w{i}", ("a", "b", "c", "d"), safe, attack="prefill")
        for i, safe in enumerate(SAFE)
    )
    states = ListStates(
        torch.zeros(3, 1), tuple(torch.tensor(row)[:, None] for row in SCORES), READING
    )
    test = Listed(lists, states)
    top1 = {}
    for margin in (0.0, 0.5):
        study = RankingStudy(
            "base",
            test,
            test,
            {RANKER: lambda *_: _Known()},
            lambda some: [[0.0] * len(one.responses) for one in some],
            margin=margin,
        )
        study.fit()
        rows, _ = study.as_sampled(test)
        for row in rows:
            if (row.group, row.num_candidates, row.metric) == ("prefill", 4, TOP1):
                top1[margin, row.ranker] = round(row.estimate.value * 3)
    kept = f"{RANKER}, first kept"
    # The ranker alone loses the first list's good first sample; kept, it does not.
    assert (top1[0.5, RANKER], top1[0.5, kept], top1[0.5, FIRST]) == (1, 2, 1)
    assert (0.0, kept) not in top1 and top1[0.0, RANKER] == 1
