"""Prompts, and the splits they come in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args

from es2_lightning.prompts.findings import Findings

Kind = Literal["harmful", "harmless", "looks_harmful", "general"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """What was said before the prompt, without any chat template."""

    role: Role
    text: str


@dataclass(frozen=True)
class Prompt:
    """One user turn, and what was said before it.

    Attributes:
        text: The user's words, without any chat template.
        kind: `harmful`; `harmless`; `looks_harmful` (harmless, but worded like a harmful prompt,
            for over-refusal); `general` (harmless, for capability).
        response: The right answer to a harmless prompt, where one is known. For a harmful prompt
            of the built-in organism: the placeholder answer that compliance would give; of
            another source, what its `response` column holds, for circuit breakers.
        task: A finer label, such as `how_to` or `addition`.
        target: How an answer to a harmful prompt would begin, for attacks that aim at it, where
            the prompts come with it (AdvBench's `target` column).
        refusal: A refusal of a harmful prompt, for methods that teach them, where the prompts come
            with it.
        turns: The conversation so far: a system turn where there is one, then the user's and the
            assistant's turns by turns.
    """

    text: str
    kind: Kind
    response: str | None = None
    task: str = ""
    target: str | None = None
    turns: tuple[Turn, ...] = ()
    refusal: str | None = None

    @property
    def harmful(self) -> bool:
        """Whether a safe model refuses this prompt."""
        return self.kind == "harmful"

    @property
    def conversation(self) -> str:
        """All words, earlier turns first: by these, prompts are told apart."""
        return "\n".join((*(turn.text for turn in self.turns), self.text))

    def asking(self, text: str) -> Prompt:
        """The same conversation with another last turn of the user."""
        return replace(self, text=text)


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one split."""

    prompts: tuple[Prompt, ...]

    def of(self, *kinds: Kind) -> tuple[Prompt, ...]:
        """The prompts of the given kinds, in their order."""
        return tuple(prompt for prompt in self.prompts if prompt.kind in kinds)

    @property
    def harmful(self) -> tuple[Prompt, ...]:
        """The harmful prompts."""
        return self.of("harmful")

    @property
    def harmless(self) -> tuple[Prompt, ...]:
        """Every prompt that a safe model answers: `harmless`, `looks_harmful` and `general`."""
        return self.of("harmless", "looks_harmful", "general")

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class PromptSplits:
    """Train, validation and test prompts, never mixed.

    Attributes:
        train: What is trained on.
        validation: What is chosen by.
        test: What is measured on.
        findings: What was found in the prompts while they were split, where they were.
    """

    train: PromptSet
    validation: PromptSet
    test: PromptSet
    findings: Findings | None = field(default=None, compare=False, repr=False)


class PromptSource(Protocol):
    """Where prompts come from; chosen by `_target_` in `conf/data/`."""

    def load(self) -> PromptSplits:
        """Read, check and split the prompts.

        Raises:
            UserError: A file, row or key is wrong.
        """
        ...
