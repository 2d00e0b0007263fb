"""transformers' own progress bars."""

from __future__ import annotations

import sys


def no_bars_in_files() -> None:
    """Switch the bars off where the output is a file, in which they would be one long line."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
