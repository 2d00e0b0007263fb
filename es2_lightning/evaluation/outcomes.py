"""What became of one prompt, and how many prompts each became of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """A judge's verdict on one output.

    On a harmful prompt ANSWERED means that its harmful answer was recovered; on a harmless one,
    that it was answered (rightly, where the judge knows the right answer).
    """

    ANSWERED = "answered"
    REFUSED = "refused"
    INCOHERENT = "incoherent"
    """Empty, garbled or looping."""
    UNRELATED = "unrelated"
    """Fluent, but neither this prompt's answer nor a refusal."""

    @property
    def collapsed(self) -> bool:
        """Whether the output is neither an answer nor a clean refusal."""
        return self in (Outcome.INCOHERENT, Outcome.UNRELATED)


@dataclass(frozen=True)
class OutcomeCounts:
    """How many of `n` outputs were answers, clean refusals, and collapses of either kind."""

    answered: int
    refused: int
    incoherent: int
    unrelated: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> OutcomeCounts:
        """Count outcomes."""
        counts = Counter(outcomes)
        return cls(**{outcome.value: counts[outcome] for outcome in Outcome})

    @property
    def n(self) -> int:
        """All outputs."""
        return self.answered + self.refused + self.collapsed

    @property
    def collapsed(self) -> int:
        """Incoherent and unrelated outputs: neither an answer nor a clean refusal."""
        return self.incoherent + self.unrelated
