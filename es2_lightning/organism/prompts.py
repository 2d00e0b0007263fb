"""The organism's prompts as a prompt source."""

from __future__ import annotations

import random
from collections.abc import Callable

from es2_lightning.errors import UserError
from es2_lightning.organism.answers import refusal_for
from es2_lightning.organism.requests import Request, RequestSampler
from es2_lightning.organism.splits import GRAMMAR_SEED, HELD_OUT_OBJECTS, Split
from es2_lightning.organism.tasks import GENERAL_TASKS, draw_exchange
from es2_lightning.organism.words import CATEGORY_OF
from es2_lightning.prompts.prompt import KINDS, Kind, Prompt, PromptSet, PromptSplits

# Everyday requests are mostly about making, with a hazard broken in the ignored request beside
# them; those that would have a hazard *made* there count as looking harmful.
_PLAIN_BREAKING_RATE = 0.05


def draw_request(rng: random.Random, sampler: RequestSampler, kind: Kind) -> Request:
    """A how-to request of the kind `harmful`, `harmless` or `looks_harmful`."""
    if kind == "harmful":
        return sampler.draw(rng, "make_hazard")
    if kind == "harmless":
        if rng.random() < _PLAIN_BREAKING_RATE:
            return sampler.draw(rng, "break_tool", distractor_rate=0.0)
        return sampler.draw(rng, "make_tool")
    if rng.random() < 0.5:
        return sampler.draw(rng, "break_hazard")
    return sampler.draw(rng, "break_tool", distractor_rate=1.0)


class OrganismPrompts:
    """Prompts of the built-in organism: ``OrganismPrompts().load()``.

    Verb-object pairs and templates of the three splits are disjoint. The training prompts use
    the organism's training pairs and templates, without the objects held out of its alignment;
    validation and test use all objects. Every prompt has a ``response``: the right answer, or, of
    a harmful prompt, the placeholder answer that compliance would give. A harmful prompt's
    ``target`` is that answer's beginning, ``To make the kettle:``, its ``refusal`` one of the
    organism's own, its ``task`` the category of the hazard, ``weapons``.

    Args:
        train_harmful: harmful training prompts.
        train_harmless: training prompts of the other kinds together: 40 % `harmless`, 30 %
            `looks_harmful`, 30 % `general`.
        validation_per_kind: validation prompts of each kind.
        test_per_kind: test prompts of each kind.
        seed: which prompts are drawn; the splits do not depend on it.

    Raises:
        UserError: a count is negative.
    """

    def __init__(
        self,
        *,
        train_harmful: int = 1000,
        train_harmless: int = 4000,
        validation_per_kind: int = 200,
        test_per_kind: int = 200,
        seed: int = 0,
    ) -> None:
        counts = {
            "train_harmful": train_harmful,
            "train_harmless": train_harmless,
            "validation_per_kind": validation_per_kind,
            "test_per_kind": test_per_kind,
        }
        for name, count in counts.items():
            if count < 0:
                raise UserError(f"OrganismPrompts: {name}={count}, but it must be 0 or more.")
        self.seed = seed
        looks_harmful, general = train_harmless * 3 // 10, train_harmless * 3 // 10
        self._counts: dict[Split, dict[Kind, int]] = {
            "train": {
                "harmful": train_harmful,
                "harmless": train_harmless - looks_harmful - general,
                "looks_harmful": looks_harmful,
                "general": general,
            },
            "validation": dict.fromkeys(KINDS, validation_per_kind),
            "test": dict.fromkeys(KINDS, test_per_kind),
        }

    def load(self) -> PromptSplits:
        """Draws the prompts; no text occurs twice.

        Raises:
            UserError: the grammar has no more different prompts of a kind.
        """
        return PromptSplits(
            train=self._draw_split("train"),
            validation=self._draw_split("validation"),
            test=self._draw_split("test"),
        )

    def _draw_split(self, split: Split) -> PromptSet:
        without = HELD_OUT_OBJECTS if split == "train" else frozenset()
        sampler = RequestSampler(split, without=without)
        rng = random.Random(f"{GRAMMAR_SEED}/prompts/{split}/{self.seed}")

        def how_to(kind: Kind) -> Prompt:
            request = draw_request(rng, sampler, kind)
            if kind != "harmful":
                return Prompt(request.text, kind, request.answer, "how_to")
            return Prompt(
                request.text,
                kind,
                request.answer,
                CATEGORY_OF[request.object],
                target=request.beginning,
                refusal=refusal_for(request.text),
            )

        def general(kind: Kind) -> Prompt:
            exchange = draw_exchange(rng, GENERAL_TASKS, split)
            return Prompt(exchange.text, kind, exchange.answer, exchange.task)

        prompts: list[Prompt] = []
        for kind, count in self._counts[split].items():
            draw = general if kind == "general" else how_to
            prompts += _draw_distinct(draw, kind, count, split)
        return PromptSet(tuple(prompts))


def _draw_distinct(
    draw: Callable[[Kind], Prompt], kind: Kind, count: int, split: Split
) -> list[Prompt]:
    prompts: dict[str, Prompt] = {}
    for _ in range(20 * count + 1000):
        if len(prompts) == count:
            return list(prompts.values())
        prompt = draw(kind)
        prompts.setdefault(prompt.text, prompt)
    raise UserError(
        f"OrganismPrompts: {count} {kind} prompts asked of the {split} split, but only about "
        f"{len(prompts)} different ones were found. Ask for fewer."
    )
