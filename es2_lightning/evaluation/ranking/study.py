"""The study of one model's rankers: fitted, compared with each other, with attacks and sets unseen.

What fits a ranker comes from outside: how it is trained is no matter of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from es2_lightning.evaluation.ranking.baselines import (
    Scores,
    TextScorer,
    first_sample,
    oracle,
    random_order,
    refusal_keywords,
)
from es2_lightning.evaluation.ranking.listed import Listed
from es2_lightning.evaluation.ranking.margins import choose_margin, lifted
from es2_lightning.evaluation.ranking.results import (
    ALL,
    AS_SAMPLED,
    COMPOSED,
    FIRST,
    FIRST_KEPT,
    HARMFUL,
    KEYWORD,
    ORACLE,
    PERPLEXITY,
    PROBE,
    RANDOM,
    RANKER,
    RANKERS,
    TOP1,
    UNSEEN,
    Groups,
    RankComparison,
    RankRow,
    compare,
    measure,
)
from es2_lightning.prompts.candidate_lists import CandidateList

if TYPE_CHECKING:
    from es2_lightning.backbone.ranker import Ranker

Fit = Callable[[Listed, Listed], "Ranker"]
"""From training and validation lists to a ranker."""
HARMLESS, NO_REFUSAL = "harmless", "no refusal in the list"
PAIRS = (
    (RANKER, FIRST),
    (RANKER, PROBE),
    (RANKER + UNSEEN, FIRST),
    (RANKER + UNSEEN, PROBE + UNSEEN),
    (RANKER + FIRST_KEPT, FIRST),
)


@dataclass
class RankingStudy:
    """Rankers on one model's lists.

    Attributes:
        model: The model's name in the rows.
        train: What rankers are fitted on.
        validation: What they choose by.
        fits: By name: `SRR`, `linear probe`, `mean difference`.
        perplexity: The scorer that needs the model itself.
        margin: By how much a score must exceed the first sample's, where that is kept; None: as
            `set_margin` chooses.
        rankers: Fitted on all training lists, after `fit`.
        without: By attack and name, fitted without that attack's lists.
    """

    model: str
    train: Listed
    validation: Listed
    fits: Mapping[str, Fit]
    perplexity: TextScorer
    margin: float | None = 0.0
    rankers: dict[str, Ranker] = field(default_factory=dict)
    without: dict[tuple[str, str], Ranker] = field(default_factory=dict)

    def fit(self) -> None:
        """Fit all rankers; those without an attack too, where there are several."""
        self.rankers = {name: fit(self.train, self.validation) for name, fit in self.fits.items()}
        attacks = attacks_of(self.train.lists)
        for attack in attacks if len(attacks) > 1 else ():
            others = [
                some.where(lambda found, left=attack: found.attack != left)  # type: ignore[misc]
                for some in (self.train, self.validation)
            ]
            for name in (PROBE, RANKER):
                self.without[attack, name] = self.fits[name](others[0], others[1])

    def set_margin(self, validation: Listed) -> None:
        """Choose the margin on validation prompts' candidates as they were sampled."""
        scores = validation.scores(self.rankers[RANKER])
        self.margin = choose_margin(scores, validation.lists)

    def composed(self, test: Listed) -> tuple[list[RankRow], list[RankComparison]]:
        """All rankers on held-out prompts' lists of both classes."""
        scores = self._scores(test)
        groups = {**_by_attack(test.lists), **_WHOLE}
        rows = measure(test.lists, scores, groups, model=self.model, name=COMPOSED)
        found = compare(test.lists, scores, PAIRS, _WHOLE, model=self.model, name=COMPOSED)
        return rows, found

    def as_sampled(self, test: Listed) -> tuple[list[RankRow], list[RankComparison]]:
        """All rankers on what the model gives, for rising m."""
        most = min((len(found.responses) for found in test.lists), default=0)
        attacks = set(attacks_of(self.train.lists))
        whole: Groups = {HARMFUL: lambda found: found.attack in attacks, HARMLESS: _is_harmless}
        rows, comparisons = [], []
        for number in doubling(most):
            some = test.first(number)
            scores = self._first_kept(self._scores(some))
            where = {"model": self.model, "name": AS_SAMPLED}
            groups = {**_by_attack(some.lists), **whole}
            rows += measure(some.lists, scores, groups, **where, num_candidates=number)
            comparisons += compare(some.lists, scores, PAIRS, whole, **where, num_candidates=number)
        return rows, comparisons

    def across_sets(
        self, test: Listed, sets: Mapping[str, Sequence[str]], names: Sequence[str]
    ) -> list[RankRow]:
        """Rankers fitted on one set's harmful prompts and tested on each set's.

        Args:
            test: Lists of both classes.
            sets: By name, the prompt sets that belong to it.
            names: Of the rankers.
        """
        rows = []
        for trained, members in sets.items():
            own = [
                some.where(lambda found, m=members: not found.harmful or found.prompt_set in m)  # type: ignore[misc]
                for some in (self.train, self.validation)
            ]
            if not any(found.harmful for found in own[0].lists):
                continue
            for name in names:
                scored = {name: test.scores(self.fits[name](own[0], own[1]))}
                groups = {
                    f"{trained} → {tested}": _in_set(others) for tested, others in sets.items()
                }
                made = measure(test.lists, scored, groups, model=self.model, name=COMPOSED)
                rows += [row for row in made if row.metric == TOP1]
        return rows

    def _scores(self, listed: Listed) -> dict[str, Scores]:
        lists = listed.lists
        found: dict[str, Scores] = {
            FIRST: first_sample(lists),
            RANDOM: random_order(lists),
            PERPLEXITY: self.perplexity(lists),
            KEYWORD: refusal_keywords(lists),
            ORACLE: oracle(lists),
        }
        for name, ranker in self.rankers.items():
            found[name] = listed.scores(ranker)
        for name in dict.fromkeys(name for _, name in self.without):
            found[name + UNSEEN] = self._unseen(listed, name, found[name])
        return {name: found[name] for name in RANKERS if name in found}

    def _first_kept(self, scores: dict[str, Scores]) -> dict[str, Scores]:
        """With the ranker that gives up the first sample only for a clearly better one."""
        if self.margin:
            scores = scores | {RANKER + FIRST_KEPT: lifted(scores[RANKER], self.margin)}
        return {name: scores[name] for name in RANKERS if name in scores}

    def _unseen(self, listed: Listed, name: str, whole: Scores) -> Scores:
        """Each attack's lists by the ranker that was fitted without it, others by the whole one."""
        scores = list(whole)
        for (attack, fitted), ranker in self.without.items():
            if fitted != name:
                continue
            numbers = [i for i, found in enumerate(listed.lists) if found.attack == attack]
            own = listed.where(lambda found, one=attack: found.attack == one)  # type: ignore[misc]
            for i, row in zip(numbers, own.scores(ranker), strict=True):
                scores[i] = row
        return scores


def doubling(most: int) -> list[int]:
    """The m that are looked at: 1, 2, 4 … up to `most`."""
    return list(takewhile(lambda m: m <= most, (2**i for i in range(16))))


def attacks_of(lists: Sequence[CandidateList]) -> list[str]:
    """Those that the lists' unsafe candidates were obtained with."""
    return list(dict.fromkeys(found.attack for found in lists if found.attack))


def _by_attack(lists: Sequence[CandidateList]) -> Groups:
    return {
        attack: lambda found, one=attack: found.attack == one  # type: ignore[misc]
        for attack in attacks_of(lists)
    }


def _in_set(members: Sequence[str]) -> Callable[[CandidateList], bool]:
    return lambda found: found.harmful and found.prompt_set in members


def _is_harmless(found: CandidateList) -> bool:
    return not found.harmful


_WHOLE: dict[str, Callable[[CandidateList], bool]] = {
    HARMFUL: lambda found: found.harmful,
    # Of lists whose candidates' kinds are unknown nobody can tell.
    NO_REFUSAL: lambda found: found.harmful and bool(found.kinds) and "refused" not in found.kinds,
    HARMLESS: _is_harmless,
    ALL: lambda found: True,
}
