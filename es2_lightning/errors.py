"""The exception that stands for a user's mistake, and what is told of others."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in a config, a file or a command line.

    Its message says what was wrong, where, and what would be accepted. The commands show the
    message alone, without a traceback.
    """


class PromptTooLong(UserError):
    """A prompt has more tokens than the model's `max_length`."""


class JobFailed(RuntimeError):
    """A job failed in another process; the message is its sentence.

    Attributes:
        report: What to show of it.
    """

    def __init__(self, sentence: str, report: str = "") -> None:
        super().__init__(sentence)
        self.report = report or f"Error: {sentence}"


def first_line(error: BaseException) -> str:
    """What went wrong, in a line: an own error's words alone, another's after its name."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, (UserError, JobFailed)):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__
