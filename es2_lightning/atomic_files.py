"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".part"
"""How a file's name ends while it is written; a process that is killed leaves it behind."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file: whoever reads it sees the old one or the new one, after a crash too.

    Yields:
        Where to write. It takes the file's place at the end, and goes away if there is an error.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Without it a machine that goes down may forget the new name."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders.
    try:
        os.fsync(opened)
    except OSError:
        pass  # Some file systems do not sync folders.
    finally:
        os.close(opened)


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
