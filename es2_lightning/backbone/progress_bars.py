"""transformers' own progress bars."""

from __future__ import annotations

import sys


def no_bars_in_files() -> None:
    """Switch transformers' bars off where the output is no terminal, but a file of one long line."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
