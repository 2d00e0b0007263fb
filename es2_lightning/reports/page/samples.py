"""What the model answered while it was trained, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.reports.page.examples import cut
from es2_lightning.reports.page.run_files import RunFiles


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        when: After how many steps.
        text: Cut where it is too long.
        harmful: Whether it may be harmful: nobody judged it.
    """

    when: str
    text: str
    harmful: bool


@dataclass(frozen=True)
class Sampled:
    """A prompt, and its answers in the order of the steps; the same one after the other once."""

    kind: str
    prompt: str
    answers: Sequence[Answer]


def sampled(run: RunFiles) -> list[Sampled]:
    """Every prompt that was asked while training; none where none was."""
    rows: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for row in run.samples:
        key = str(row["kind"]), str(row["prompt"])
        rows.setdefault(key, []).append((int(row["step"]), str(row["output"])))
    return [
        Sampled(kind.replace("_", " "), cut(prompt), _answers(some, harmful=kind == "harmful"))
        for (kind, prompt), some in rows.items()
    ]


def _answers(rows: Sequence[tuple[int, str]], *, harmful: bool) -> list[Answer]:
    """Steps at which the answer did not change are told together."""
    steps: list[list[int]] = []
    texts: list[str] = []
    for step, text in sorted(rows, key=lambda row: row[0]):
        if not texts or texts[-1] != text:
            texts.append(text)
            steps.append([])
        steps[-1].append(step)
    return [
        Answer(_when(some), cut(text), harmful) for some, text in zip(steps, texts, strict=True)
    ]


def _when(steps: Sequence[int]) -> str:
    first, last = steps[0], steps[-1]
    if last == 0:
        return "before training"
    if first == last:
        return f"after {first} steps"
    return f"from the start to step {last}" if first == 0 else f"from step {first} to {last}"
