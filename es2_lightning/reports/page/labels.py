"""What runs are called beside each other: a number, and what sets each apart."""

from __future__ import annotations

from collections.abc import Sequence

from es2_lightning.reports.page.about import differing
from es2_lightning.reports.page.run_files import RunFiles

LONGEST = 40
"""Characters of a name."""
MOST_SETTINGS = 3
"""Settings in a name; runs that differ in more go by their folders."""


def numbers(runs: Sequence[RunFiles]) -> list[int]:
    """A sweep's own numbers; of runs that are no jobs of one sweep, from 1."""
    jobs = [run.job for run in runs if run.job is not None]
    one_sweep = len({run.folder.parent for run in runs}) == 1
    return jobs if one_sweep and len(jobs) == len(runs) else list(range(1, len(runs) + 1))


def labels(runs: Sequence[RunFiles]) -> list[str]:
    """A name for each run, such as `2: kl_weight 0.3`."""
    settings = differing(runs)
    few = 0 < len(settings) <= MOST_SETTINGS
    names = []
    for place, (number, run) in enumerate(zip(numbers(runs), runs, strict=True)):
        words = ", ".join(
            f"{key.rpartition('.')[2]} {values[place]}" for key, values in settings.items()
        )
        if len(set(map(_method, runs))) > 1 and _method(run):
            alike = [one for one in runs if _method(one) == _method(run)]
            words = _method(run)
            if len({tuple(one.layers) for one in alike}) > 1:
                words += f", layers {','.join(map(str, run.layers))}"
        elif not few:
            words = run.name
        words = words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"
        names.append(f"{number}: {words}")
    return names


def _method(run: RunFiles) -> str:
    return str(run.choices.get("method", ""))
