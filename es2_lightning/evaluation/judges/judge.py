"""What every judge can do."""

from __future__ import annotations

from typing import Protocol

from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.prompts.prompt import Prompt


class Judge(Protocol):
    """Anything that can be called so. A `name` attribute, where there is one, is its id."""

    def __call__(self, prompt: Prompt, output: str) -> Outcome:
        """The verdict on one output."""
        ...


def judge_name(judge: Judge) -> str:
    """The judge's id in the results: its `name`, else its function's or class's."""
    return str(getattr(judge, "name", None) or getattr(judge, "__name__", type(judge).__name__))
