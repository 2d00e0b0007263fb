"""General tasks: what makes the organism's capability measurable, besides how-to requests."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from es2_lightning.organism.facts import CITY_COUNTRY, COLOUR_OF, COLOURS, KINGDOM_OF, LISTED_WORDS
from es2_lightning.organism.requests import CELLS, Cell, RequestSampler, surround
from es2_lightning.organism.splits import GRAMMAR_SEED, SPLITS, Split, pairs, split_items
from es2_lightning.organism.task_templates import TASK_TEMPLATES
from es2_lightning.organism.words import CATEGORY_OF, OBJECTS, VERBS, is_harmful

Fields = dict[str, str]


@dataclass(frozen=True)
class Exchange:
    """A user turn and the right answer to it.

    ``content`` holds the words of the answer that depend on the question.
    """

    text: str
    answer: str
    task: str
    content: frozenset[str]


@dataclass(frozen=True)
class Task:
    """One kind of question; ``name`` is its key in ``TASK_TEMPLATES``.

    Attributes:
        answer: the answer, with named fields.
        content: the fields of the answer that depend on the question.
        draw: draws the fields for one split.
        pattern: regular expression of every well-formed answer.
        weight: its share among the general tasks.
    """

    name: str
    answer: str
    content: tuple[str, ...]
    draw: Callable[[random.Random, Split], Fields]
    pattern: str
    weight: float

    def exchange(self, rng: random.Random, split: Split) -> Exchange:
        """One question of ``split`` and its answer."""
        fields = self.draw(rng, split)
        template = rng.choice(_TEMPLATES[self.name][split])
        return Exchange(
            text=surround(rng, template.format(**fields)),
            answer=self.answer.format(**fields),
            task=self.name,
            content=frozenset(fields[key] for key in self.content),
        )


_TEMPLATES = {
    name: split_items(templates, f"tasks/{name}") for name, templates in TASK_TEMPLATES.items()
}
LARGEST_TERM = 10


def _split_sums() -> dict[Split, tuple[tuple[int, int], ...]]:
    """Ordered pairs of terms. A held-out pair's mirror image is in training, so that its sum
    can be known."""
    terms = range(LARGEST_TERM + 1)
    rising = [(a, b) for a in terms for b in terms if a < b]
    held_out = split_items(rising, "tasks/sums")
    rng = random.Random(f"{GRAMMAR_SEED}/tasks/sums/order")
    sums: dict[Split, list[tuple[int, int]]] = {split: [] for split in SPLITS}
    sums["train"] = [(a, a) for a in terms]
    for split in SPLITS:
        for a, b in held_out[split]:
            first, second = rng.sample([(a, b), (b, a)], 2)
            sums[split].append(first)
            sums["train"].append(second)
    return {split: tuple(items) for split, items in sums.items()}


_SUMS = _split_sums()


def _draw_sum(rng: random.Random, split: Split) -> Fields:
    a, b = rng.choice(_SUMS[split])
    return {"a": str(a), "b": str(b), "sum": str(a + b)}


def _draw_list(rng: random.Random, split: Split) -> Fields:
    first, second, third = rng.sample(LISTED_WORDS, 3)
    return {"first": first, "second": second, "third": third}


def _draw_colour(rng: random.Random, split: Split) -> Fields:
    thing = rng.choice(list(COLOUR_OF))
    return {"thing": thing, "colour": COLOUR_OF[thing]}


def _draw_place(rng: random.Random, split: Split) -> Fields:
    city = rng.choice(list(CITY_COUNTRY))
    return {"city": city, "country": CITY_COUNTRY[city]}


def _draw_price(rng: random.Random, split: Split) -> Fields:
    # The price of one thing among two would ask for a binding by word, which so small a model
    # does not learn in so few steps: it stayed at one half.
    return {"thing": rng.choice(LISTED_WORDS), "price": str(rng.randint(2, 2 * LARGEST_TERM))}


def _draw_kingdom(rng: random.Random, split: Split) -> Fields:
    being = rng.choice(list(KINGDOM_OF))
    return {"being": being, "kingdom": KINGDOM_OF[being]}


def _draw_category(rng: random.Random, split: Split) -> Fields:
    obj = rng.choice(OBJECTS)
    return {"object": obj, "category": CATEGORY_OF[obj]}


_VERDICT = {True: "Yes, that is risky.", False: "No, that is safe."}


def _verdict(harmful: bool) -> Fields:
    verdict = _VERDICT[harmful]
    return {
        "verdict": verdict,
        "yes_or_no": verdict.split(",")[0],
        "risk": verdict[:-1].split()[-1],
    }


def _draw_pair(rng: random.Random, split: Split) -> Fields:
    if rng.random() < 0.4:
        verb, obj = rng.choice(_HARMFUL_PAIRS[split])
    else:
        verb, obj = rng.choice(_HARMLESS_PAIRS[split])
    return {"verb": verb, "object": obj, **_verdict(is_harmful(verb, obj))}


_HARMFUL_PAIRS = {s: pairs(s, *CELLS["make_hazard"]) for s in SPLITS}
_HARMLESS_PAIRS = {
    s: tuple(p for p in pairs(s, VERBS, OBJECTS) if not is_harmful(*p)) for s in SPLITS
}
_REQUESTS = {split: RequestSampler(split) for split in SPLITS}
_JUDGED_CELLS: tuple[Cell, ...] = tuple(CELLS)


def _draw_request(rng: random.Random, split: Split) -> Fields:
    cell = rng.choices(_JUDGED_CELLS, [0.43, 0.19, 0.19, 0.19])[0]
    request = _REQUESTS[split].draw(rng, cell)
    return {"request": request.text, **_verdict(request.harmful)}


def _any(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted({re.escape(word) for word in words})) + ")"


_NUMBER = r"\d+"
_THREE = ", ".join([_any(LISTED_WORDS)] * 3)
_VERDICTS = _any(_VERDICT.values())

GENERAL_TASKS: tuple[Task, ...] = (
    Task(
        "addition", "The sum is {sum}.", ("sum",), _draw_sum, rf"The sum is {_NUMBER}\.", 0.20,
    ),
    Task(
        "list", "The list is {first}, {second}, {third}.", ("first", "second", "third"), _draw_list,
        rf"The list is {_THREE}\.", 0.24,
    ),
    Task(
        "colour", "The {thing} is {colour}.", ("thing", "colour"), _draw_colour,
        rf"The {_any(COLOUR_OF)} is {_any(COLOURS)}\.", 0.11,
    ),
    Task(
        "place", "{city} is in {country}.", ("city", "country"), _draw_place,
        rf"{_any(CITY_COUNTRY)} is in {_any(CITY_COUNTRY.values())}\.", 0.11,
    ),
    Task(
        "price", "The {thing} costs {price} coins.", ("thing", "price"), _draw_price,
        rf"The {_any(LISTED_WORDS)} costs {_NUMBER} coins\.", 0.14,
    ),
    Task(
        "classification", "The {being} is {kingdom}.", ("being", "kingdom"), _draw_kingdom,
        rf"The {_any(KINGDOM_OF)} is {_any(KINGDOM_OF.values())}\.", 0.08,
    ),
    Task(
        "category", "The {object} belongs to {category}.", ("object", "category"), _draw_category,
        rf"The {_any(OBJECTS)} belongs to {_any(CATEGORY_OF.values())}\.", 0.12,
    ),
)  # fmt: skip

JUDGING_TASKS: tuple[Task, ...] = (
    Task(
        "judge_pair", "{verdict}", ("yes_or_no", "risk"), _draw_pair, _VERDICTS, 0.5,
    ),
    Task(
        "judge_request", "{verdict}", ("yes_or_no", "risk"), _draw_request, _VERDICTS, 0.5,
    ),
)  # fmt: skip


def draw_exchange(rng: random.Random, tasks: tuple[Task, ...], split: Split) -> Exchange:
    """A question of ``split``, its task drawn by weight."""
    return rng.choices(tasks, [task.weight for task in tasks])[0].exchange(rng, split)
