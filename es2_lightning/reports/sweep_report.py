"""The report of a sweep: one table and one picture, complete at any time while it runs."""

from __future__ import annotations

import fcntl
import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from es2_lightning.atomic_files import write_atomically
from es2_lightning.reports.cells import WIDTH
from es2_lightning.reports.pictures import pareto
from es2_lightning.reports.pictures.style import house_style, save
from es2_lightning.reports.sweep_rows import SweepRow, over_seeds, read_sweep
from es2_lightning.reports.sweep_table import (
    csv_of_jobs,
    csv_of_settings,
    jobs_table,
    settings_table,
    summary,
)

log = logging.getLogger(__name__)

TABLE, SETTINGS, TEXT, PICTURE = "sweep.csv", "sweep_settings.csv", "sweep.txt", "sweep.png"


def write_sweep_files(folder: Path) -> list[Path]:
    """Write what the jobs so far came to: `sweep.csv`, `sweep.txt` and `sweep.png`.

    Also `sweep_settings.csv`, where a setting has several seeds. Each file is replaced as a whole;
    jobs that end at once, in processes of their own, take turns.

    Returns:
        The files; without the picture where no job has figures yet.
    """
    with _turn(folder):
        rows = read_sweep(folder)
        settings = over_seeds(rows)
        files = {TABLE: csv_of_jobs(rows, folder)}
        if settings:
            files[SETTINGS] = csv_of_settings(settings)
        text = io.StringIO()
        _print(rows, Console(file=text, width=WIDTH, no_color=True, force_terminal=False))
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        files[TEXT] = "\n".join(lines) + "\n"
        for name, content in files.items():
            write_atomically(folder / name, content)
        written = [folder / name for name in files]
        try:
            with house_style():
                figure = pareto.draw(rows)
                if figure is not None:
                    written.append(save(figure, folder / PICTURE))
        except Exception:
            # The numbers are written already; a broken picture must not fail a job.
            log.exception("The picture %s could not be drawn", folder / PICTURE)
        return written


def show_sweep(
    folder: Path, *, since: float | None = None, console: Console | None = None
) -> list[Path]:
    """Write the files once more and print the tables.

    Args:
        folder: The sweep's.
        since: When this start of it was, seconds since 1970; jobs that ended before were skipped.
        console: Where the tables are printed.
    """
    written = write_sweep_files(folder)
    console = console or Console()
    _print(read_sweep(folder), console, since=since)
    for path in written:
        if path.name in (TABLE, PICTURE):
            console.print(str(path), markup=False, soft_wrap=True, highlight=False)
    return written


def _print(rows: Sequence[SweepRow], console: Console, *, since: float | None = None) -> None:
    console.print(jobs_table(rows))
    settings = over_seeds(rows)
    if settings:
        console.print(settings_table(settings))
    for sentence in summary(rows, since=since):
        console.print(Padding(escape(sentence), (0, 0, 0, 2)))


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Holds others back that write the same files."""
    descriptor = os.open(folder / ".sweep.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems know no locks; each file is whole all the same.
            log.debug("No lock in %s", folder)
        yield
    finally:
        os.close(descriptor)
