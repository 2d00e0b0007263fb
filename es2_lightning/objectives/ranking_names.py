"""The ranking losses by name; light to import, so that config errors answer at once."""

from __future__ import annotations

from typing import Literal, get_args

RankingObjective = Literal["listnet", "pairwise", "pointwise"]
RANKING_OBJECTIVES: tuple[RankingObjective, ...] = get_args(RankingObjective)
