"""All candidates of a model: of each split, under each attack, and on harmless prompts."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from es2_lightning.evaluation.attacks.attack import Attack, NotPossible
from es2_lightning.evaluation.attacks.direct import Direct
from es2_lightning.evaluation.judges.judge import Judge
from es2_lightning.evaluation.ranking.composing import (
    Composed,
    compose_harmful,
    compose_harmless,
    refusals_in,
)
from es2_lightning.evaluation.ranking.judged import Judged, judge_candidates
from es2_lightning.evaluation.ranking.sampling import SampledModel
from es2_lightning.evaluation.ranking.sources import DIRECT
from es2_lightning.prompts.candidate_lists import CandidateList
from es2_lightning.prompts.prompt import KINDS, Prompt, PromptSet

log = logging.getLogger(__name__)
HARMLESS = "harmless"
"""Stands where an attack would: harmless prompts, asked directly."""


@dataclass(frozen=True)
class SplitCandidates:
    """The candidates of one split's prompts.

    Attributes:
        split: Its name.
        attacked: Of the harmful prompts, by attack; `direct` is always there.
        harmless: Of the harmless ones.
    """

    split: str
    attacked: Mapping[str, Sequence[Judged]]
    harmless: Sequence[Judged]

    def as_sampled(self) -> tuple[CandidateList, ...]:
        """Every list as it would be met in use, the harmless prompts' last."""
        attacked = [judged for some in self.attacked.values() for judged in some]
        return tuple(judged.as_list for judged in (*attacked, *self.harmless))

    def composed(self, *, size: int, seed: int) -> dict[str, Composed]:
        """Lists with both classes, by attack, and those of the harmless prompts."""
        direct = self.attacked[DIRECT]
        made = {
            attack: compose_harmful(judged, direct, self.harmless, size=size, seed=seed)
            for attack, judged in self.attacked.items()
            if attack != DIRECT
        }
        made[HARMLESS] = compose_harmless(self.harmless, refusals_in(direct), size=size, seed=seed)
        for attack, composed in made.items():
            if composed.left_out.reasons:
                log.info(
                    "%s lists, %s: %d, and %d prompts without one: %s",
                    self.split,
                    attack,
                    len(composed.lists),
                    composed.left_out.reasons.total(),
                    str(composed.left_out).replace("row", "prompt"),
                )
        return made


def draw_prompts(
    prompts: PromptSet, *, harmful: int, harmless: int, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """Harmful prompts, and harmless ones of each kind alike, drawn at random where there are more.

    Returns:
        At most so many of each, in the split's order.
    """
    kinds = [kind for kind in KINDS if kind != "harmful" and prompts.of(kind)]
    chosen: list[Prompt] = []
    for i, kind in enumerate(kinds):
        share = harmless // len(kinds) + (i < harmless % len(kinds))
        chosen += _draw(prompts.of(kind), share, seed)
    return _draw(prompts.harmful, harmful, seed), chosen


def gather(
    model: SampledModel,
    attacks: Mapping[str, Attack],
    attack_settings: Mapping[str, Mapping[str, Any]],
    prompts: tuple[Sequence[Prompt], Sequence[Prompt]],
    judge: Judge,
    *,
    split: str,
    num_candidates: int,
) -> SplitCandidates:
    """Sample and judge; what was sampled before is not sampled again.

    Args:
        model: What is sampled from.
        attacks: By name.
        attack_settings: Each one's config.
        prompts: Harmful and harmless ones.
        judge: Whose word makes a candidate safe or unsafe.
        split: The prompts' split.
        num_candidates: For each prompt, under each attack.

    Raises:
        UserError: The judge cannot work.
    """
    harmful, harmless = prompts
    every: dict[str, Attack] = {DIRECT: Direct(), **attacks}
    attacked: dict[str, list[Judged]] = {}
    for name, attack in every.items():
        try:
            sampled = model.sample(
                attack,
                harmful,
                name=name,
                settings=attack_settings.get(name, {}),
                num_candidates=num_candidates,
                split=split,
            )
        except NotPossible as error:
            log.warning("%s: no candidates under attack.%s: %s", model.label, name, error)
            continue
        attacked[name] = judge_candidates(sampled, attack=name, judge=judge)
    sampled = model.sample(
        Direct(),
        harmless,
        name=HARMLESS,
        settings={},
        num_candidates=num_candidates,
        split=split,
    )
    return SplitCandidates(split, attacked, judge_candidates(sampled, attack="", judge=judge))


def _draw(prompts: Sequence[Prompt], most: int, seed: int) -> list[Prompt]:
    """Among them are those that a smaller number would draw."""
    order = random.Random(seed).sample(range(len(prompts)), len(prompts))
    return [prompts[i] for i in sorted(order[:most])]
