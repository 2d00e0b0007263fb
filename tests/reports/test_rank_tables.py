"""The rank command's tables tell only what is known."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from es2_lightning.evaluation.ranking.baselines import random_order
from es2_lightning.evaluation.ranking.results import COMPOSED, RANDOM, RankResults, measure
from es2_lightning.evaluation.ranking.study import _WHOLE
from es2_lightning.prompts.candidate_lists import CandidateList
from es2_lightning.reports.rank_report import write_rank_report
from es2_lightning.reports.rank_tables import tables


def shown(lists: Sequence[CandidateList]) -> dict[str, str]:
    """The tables' text by the first words of their titles."""
    rows = measure(lists, {RANDOM: random_order(lists)}, _WHOLE, model="base", name=COMPOSED)
    text = {}
    for table in tables(RankResults(tuple(rows))):
        file = io.StringIO()
        Console(file=file, width=100).print(table)
        text[str(table.title).split(",")[0]] = file.getvalue()
    return text


def test_what_candidates_are_is_not_told_where_it_is_unknown() -> None:
    unknown = [CandidateList(f"q{i}", ("a", "b"), (True, False)) for i in range(3)]
    told = shown(unknown)
    assert not any(title.startswith("What is chosen") for title in told)
    (orders,) = (text for title, text in told.items() if title.startswith("The same lists"))
    (row,) = (line for line in orders.splitlines() if line.startswith(RANDOM))
    assert row.split()[1] == "50" and row.split()[-1] == "–"

    known = CandidateList("q", ("a", "b"), (True, False), kinds=("refused", "answered"))
    (row,) = (
        line
        for line in shown([*unknown, known])["What is chosen first"].splitlines()
        if line.startswith(RANDOM)
    )
    # Of harmful prompts the one list alone; there are none of harmless prompts.
    assert row.split()[1:] == ["50", "50", "0", "0", "|", "–", "–", "–"]


def test_another_ranker_than_srrs_is_named(tmp_path: Path) -> None:
    for ranker, said in (("linear_probe", True), ("listnet", False)):
        console = Console(file=io.StringIO())
        write_rank_report(RankResults(()), tmp_path, ranker=ranker, console=console)
        table = (tmp_path / "table.txt").read_text()
        assert ("“SRR” is ranker=linear_probe" in table) is said
        assert json.loads((tmp_path / "rank.json").read_text())["notes"]["ranker"] == ranker
