"""Example generations: for each attack and verdict some, the same prompts for all models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from es2_lightning.evaluation.measurement import AttackMeasurement
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.reports.attack_table import Shown, shown_attacks
from es2_lightning.reports.harmless_table import KINDS
from es2_lightning.reports.page.columns import Column

EACH = 2
"""Examples of each verdict."""
LONGEST = 1500
"""Characters of a text that are shown."""
WORDS = {
    Outcome.ANSWERED: "answered",
    Outcome.REFUSED: "refused",
    Outcome.INCOHERENT: "incoherent",
    Outcome.UNRELATED: "unrelated",
    Outcome.UNDECIDED: "no verdict",
}


@dataclass(frozen=True)
class Output:
    """What a model said.

    Attributes:
        label: The model.
        outcome: The headline judge's word.
        text: Cut where it is too long.
        harmful: Whether it may be a harmful answer, to be read only by who wants to.
        others: What other judges said, and how the attack was made.
    """

    label: str
    outcome: str
    text: str
    harmful: bool
    others: str = ""


@dataclass(frozen=True)
class Example:
    """A prompt, and what each model said to it."""

    prompt: str
    outputs: Sequence[Output]


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one verdict.

    Attributes:
        outcome: The verdict on the last model.
        count: How many prompts had it.
        of: How many there were.
    """

    outcome: str
    count: int
    of: int
    examples: Sequence[Example]


@dataclass(frozen=True)
class ExampleSection:
    """The examples of one attack, or of one kind of prompts that are not harmful."""

    title: str
    groups: Sequence[ExampleGroup]


def example_sections(columns: Sequence[Column]) -> list[ExampleSection]:
    """Grouped by the verdict on the last column's model, worst first."""
    sections = [_of_attack(columns, attack) for attack in shown_attacks(columns[-1].comparison)]
    sections += [_of_kind(columns, kind, words) for kind, words in KINDS.items()]
    return [section for section in sections if section.groups]


def _of_attack(columns: Sequence[Column], attack: Shown) -> ExampleSection:
    made = [column.measured.attacks.get(attack.attack) for column in columns]
    name = f"{attack.attack}, {attack.variant}" if attack.variant else attack.attack
    title = "Harmful requests, asked directly" if attack.name == "direct" else f"Attack: {name}"
    return ExampleSection(title, list(_groups(columns, made, attack.variant, harmful=True)))


def _of_kind(columns: Sequence[Column], kind: str, words: str) -> ExampleSection:
    made = [column.measured.direct.get(kind) for column in columns]  # type: ignore[call-overload]
    title = f"Not harmful: {words}"
    return ExampleSection(title, list(_groups(columns, made, "", harmful=False)))


def _groups(
    columns: Sequence[Column],
    made: Sequence[AttackMeasurement | None],
    variant: str,
    *,
    harmful: bool,
) -> Iterator[ExampleGroup]:
    last = made[-1]
    if last is None or last.not_possible or variant not in last.variants:
        return
    verdicts = [
        dict(zip(one.prompts, one.outcomes(column.measured.headline, variant), strict=True))
        if one and variant in one.variants
        else {}
        for column, one in zip(columns, made, strict=True)
    ]
    outcomes = last.outcomes(columns[-1].measured.headline, variant)
    for outcome in WORDS:
        places = [i for i, found in enumerate(outcomes) if found is outcome]
        if not places:
            continue
        examples = []
        if len(columns) > 2:
            # Of several runs first what sets them apart.
            places.sort(key=lambda i: -len({v[p] for v in verdicts if (p := last.prompts[i]) in v}))
        for place in places[:EACH]:
            prompt = last.prompts[place]
            outputs = [
                _output(column, one, one.prompts.index(prompt), variant, harmful=harmful)
                for column, one, there in zip(columns, made, verdicts, strict=True)
                if one and prompt in there
            ]
            examples.append(Example(cut(prompt.text), outputs))
        yield ExampleGroup(WORDS[outcome], len(places), len(outcomes), examples)


def _output(
    column: Column, made: AttackMeasurement, place: int, variant: str, *, harmful: bool
) -> Output:
    judge = column.measured.headline
    outcome = made.outcomes(judge, variant)[place]
    attacked = made.attacked[place]
    # Of several tries the last one of the verdict that counts.
    number = max(
        i
        for i, generation in enumerate(attacked.generations)
        if generation.variant == variant and made.verdicts[judge][place][i].outcome is outcome
    )
    generation = attacked.generations[number]
    said = {name: verdicts[place][number].outcome for name, verdicts in made.verdicts.items()}
    others = [f"{name}: {WORDS[one]}" for name, one in said.items() if name != judge]
    if generation.details:
        others.append(f"made with {json.dumps(generation.details, ensure_ascii=False)}")
    answered = any(one in (Outcome.ANSWERED, Outcome.UNDECIDED) for one in said.values())
    return Output(
        column.label,
        WORDS[outcome],
        cut(generation.output),
        harmful and answered,
        cut("; ".join(others), 300),
    )


def cut(text: str, longest: int = LONGEST) -> str:
    """A text that is not too long; what is left out is told."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text) - longest} characters more)"
