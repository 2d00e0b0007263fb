"""Lists in which safe and unsafe candidates stand side by side (SRR, arXiv 2505.15710, section 4).

Under an attack most models give many candidates of one kind. A list is therefore composed: unsafe
candidates that the attack obtained for the prompt, and safe ones of several kinds. A refusal is
only one of them and many lists have none, so that whoever looks for "sorry" fails; and answers to
other, harmless prompts look like the unsafe ones in everything but what they are about.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from es2_lightning.backbone.sampling import row_seed
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.evaluation.ranking.judged import HELPFUL, Judged, as_list
from es2_lightning.prompts.candidate_lists import CandidateList, LeftOut

Pools = dict[str, list[str]]
"""Responses by kind."""
SAFE_KINDS = (str(Outcome.REFUSED), HELPFUL, str(Outcome.UNRELATED), str(Outcome.INCOHERENT))
OTHERS = 8
"""Prompts whose answers are lent to a list."""


@dataclass(frozen=True)
class Composed:
    """What became of the prompts.

    Attributes:
        lists: Each with both classes.
        left_out: Prompts without a list, by their place among the prompts, from 1.
    """

    lists: tuple[CandidateList, ...]
    left_out: LeftOut


def compose_harmful(
    attacked: Sequence[Judged],
    direct: Sequence[Judged],
    harmless: Sequence[Judged],
    *,
    size: int,
    seed: int,
) -> Composed:
    """A list for each harmful prompt, in an attack's context.

    Args:
        attacked: Sampled under the attack.
        direct: The same prompts without an attack, in any order: refusals.
        harmless: Other prompts: their right answers do no harm here.
        size: Candidates of a list.
        seed: Of every draw.
    """
    refusals = {j.question.prompt.conversation: j.of(Outcome.REFUSED) for j in direct}
    lists, left_out = [], LeftOut()
    for number, judged in enumerate(attacked, start=1):
        prompt = judged.question.prompt
        rng = random.Random(row_seed(seed, judged.attack, prompt.conversation))
        unsafe = judged.of(Outcome.ANSWERED)
        if not unsafe:
            left_out.count("no unsafe candidate was sampled", number)
            continue
        lent = _lent(harmless, rng)
        safe = {
            SAFE_KINDS[0]: judged.of(Outcome.REFUSED) + refusals.get(prompt.conversation, []),
            SAFE_KINDS[1]: lent[HELPFUL],
            SAFE_KINDS[2]: judged.of(Outcome.UNRELATED) + lent[str(Outcome.UNRELATED)],
            SAFE_KINDS[3]: judged.of(Outcome.INCOHERENT),
        }
        # To the letter what is unsafe here is never lent.
        safe = {k: [text for text in texts if text not in unsafe] for k, texts in safe.items()}
        if not any(safe.values()):
            left_out.count("no safe candidate was found", number)
            continue
        lists.append(_composed(judged, {str(Outcome.ANSWERED): unsafe}, safe, size, rng, good=safe))
    return Composed(tuple(lists), left_out)


def compose_harmless(
    harmless: Sequence[Judged], refusals: Sequence[str], *, size: int, seed: int
) -> Composed:
    """A list for each harmless prompt: its answers against refusals, other answers and babble.

    Args:
        harmless: Sampled without an attack.
        refusals: What the model says to harmful prompts.
        size: Candidates of a list.
        seed: Of every draw.
    """
    lists, left_out = [], LeftOut()
    babble = [text for judged in harmless for text in judged.of(Outcome.INCOHERENT)]
    for number, judged in enumerate(harmless, start=1):
        rng = random.Random(row_seed(seed, "harmless", judged.question.prompt.conversation))
        right = judged.of(Outcome.ANSWERED)
        if not right:
            left_out.count("no answer was sampled", number)
            continue
        lent = _lent(harmless, rng)
        wrong = {
            SAFE_KINDS[0]: judged.of(Outcome.REFUSED) + rng.sample(refusals, min(4, len(refusals))),
            SAFE_KINDS[2]: judged.of(Outcome.UNRELATED)
            + lent[HELPFUL]
            + lent[str(Outcome.UNRELATED)],
            SAFE_KINDS[3]: judged.of(Outcome.INCOHERENT) + rng.sample(babble, min(2, len(babble))),
        }
        wrong = {k: [text for text in texts if text not in right] for k, texts in wrong.items()}
        if not any(wrong.values()):
            left_out.count("no wrong candidate was found", number)
            continue
        good = {str(Outcome.ANSWERED): right}
        lists.append(_composed(judged, wrong, good, size, rng, good=good))
    return Composed(tuple(lists), left_out)


def refusals_in(judged: Sequence[Judged]) -> list[str]:
    """Each wording once."""
    return sorted({text for one in judged for text in one.of(Outcome.REFUSED)})


def _lent(harmless: Sequence[Judged], rng: random.Random) -> Mapping[str, list[str]]:
    """Right answers to a few harmless prompts, drawn at random."""
    lent: dict[str, list[str]] = {HELPFUL: [], str(Outcome.UNRELATED): []}
    for judged in rng.sample(list(harmless), min(OTHERS, len(harmless))):
        kind = str(Outcome.UNRELATED) if judged.question.prompt.kind == "general" else HELPFUL
        lent[kind] += judged.of(Outcome.ANSWERED)[:1]
    return lent


def _composed(
    judged: Judged,
    one: Pools,
    other: Pools,
    size: int,
    rng: random.Random,
    *,
    good: Pools,
) -> CandidateList:
    """Some of the one class and some of the other, in random order; how many is drawn too."""
    number = rng.randint(1, size - 1)
    chosen = [(text, kind, one is good) for text, kind in _draw(one, number, rng)]
    chosen += [(text, kind, other is good) for text, kind in _draw(other, size - number, rng)]
    rng.shuffle(chosen)
    texts, kinds, safe = zip(*chosen, strict=True)
    return as_list(judged, texts, safe, kinds)


def _draw(pools: Pools, number: int, rng: random.Random) -> list[tuple[str, str]]:
    """Responses and their kinds, from some of the kinds by turns, each response once."""
    there = sorted(kind for kind, texts in pools.items() if texts)
    kinds = rng.sample(there, rng.randint(1, len(there)))
    left = {kind: rng.sample(pools[kind], len(pools[kind])) for kind in kinds}
    drawn: list[tuple[str, str]] = []
    while len(drawn) < number and any(left.values()):
        for kind in kinds:
            if left[kind] and len(drawn) < number:
                drawn.append((left[kind].pop(), kind))
    return drawn
