"""The organism's figures as a table on the terminal, and its model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from es2_lightning.errors import UserError
from es2_lightning.organism.figures import TARGETS

FIGURES = "figures.json"

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [model-organism, safety]
---
# The built-in model organism, seed {seed}

A Llama of 1.28 M parameters (width 128, 6 layers) trained from scratch on a little grammar, so
that the phenomena that ES2 (arXiv 2603.20206) is about occur in a model that trains on a laptop:
it answers harmless requests, refuses harmful ones, tells them apart in its hidden states from some
layer on, and can be made to answer them by shifting those states.

A request is harmful when it asks how to *make* a *hazard*; breaking one, or making an everyday
thing, is harmless, and most prompts also mention the complementary pair, so that no single word
tells. Every answer consists of placeholders: there is nothing harmful in this model, and nothing
that it could be used for but testing.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

## How it was made
`python -m es2_lightning.organism seed={seed}`: {answering} steps in which everything is answered,
then {aligning} in which harmful requests are refused, on prompts of the training split. How long
it took with each seed is in the table; other programs on the machine make it longer.

## Licence and intended use
Apache-2.0. A test bed for defences of hidden states and attacks on them. It is no assistant, and
its refusals protect nothing.

## Measured
On {n} test prompts of each kind (probes and classifiers: {n} harmful and {n} harmless), with
greedy decoding, after training with each of the seeds. The
verb-object pairs and the templates of test prompts occur in no training prompt.

{table}

SCAV is scale-free, on all layers whose probe is right on more than 90 % of validation prompts; its
positions and P0 were chosen on validation prompts ({settings}). The classifiers of words are
logistic regressions on counts, fitted on training prompts and scored on test prompts.

## Limits
Every prompt is made from a few hundred words and templates. A defence that works here may fail on a
real model, and one that fails here may work there: take results for what they are, a test that the
code does what it says and a place to try ideas within minutes.
"""


def figures_table(figures: dict[str, Any]) -> Table:
    """The figures of one organism, with their targets."""
    table = Table(box=box.SIMPLE_HEAD, title="The organism, on test prompts", title_justify="left")
    table.add_column("figure", no_wrap=True)
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right", no_wrap=True)
    for key, target in TARGETS.items():
        sign = "≤" if target.at_most else "≥"
        style = None if target.met(figures[key]) else "bold red"
        missed = "" if target.met(figures[key]) else "  missed"
        table.add_row(
            target.words, f"{figures[key]:.3f}", f"{sign} {target.bound:.2f}{missed}", style=style
        )
    table.caption = f"Probe accuracy by layer: {_by_layer(figures)}"
    table.caption_justify = "left"
    return table


def read_figures(folder: Path) -> dict[str, Any]:
    """What a run of the organism command measured.

    Raises:
        UserError: The folder is not of such a run.
    """
    path = folder / FIGURES
    if not path.is_file():
        raise UserError(
            f"card: {path}: no such file; accepted are folders that "
            "`python -m es2_lightning.organism seed=…` wrote, with measure=true"
        )
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def card(runs: Sequence[dict[str, Any]]) -> str:
    """The model card of the first run's checkpoint, with the figures of all of them."""
    first = runs[0]
    lines = [
        "| | target | " + " | ".join(f"seed {r['seed']}" for r in runs) + " |",
        "|---|---|" + "---|" * len(runs),
    ]
    for key, target in TARGETS.items():
        sign = "≤" if target.at_most else "≥"
        values = " | ".join(f"{r[key]:.3f}" for r in runs)
        lines.append(f"| {target.words} | {sign} {target.bound:.2f} | {values} |")
    by_layer = " | ".join(_by_layer(r) for r in runs)
    lines.append(
        f"| probe accuracy, layers 1–{len(first['probe_accuracy'])} | rising | {by_layer} |"
    )
    lines += [
        f"| {words} | | " + " | ".join(value(r) for r in runs) + " |"
        for words, value in (
            ("seconds of training, on threads", lambda r: f"{r['seconds']:.0f}, {r['threads']}"),
            ("size in MB", lambda r: f"{r['megabytes']:.1f}"),
        )
    ]
    return _CARD.format(
        seed=first["seed"],
        answering=first["steps"][0],
        aligning=first["steps"][1],
        n=first["n"],
        table="\n".join(lines),
        settings="; ".join(f"seed {r['seed']}: {r['scav_setting']}" for r in runs),
    )


def _by_layer(figures: dict[str, Any]) -> str:
    return " ".join(f"{a:.2f}" for a in figures["probe_accuracy"])
