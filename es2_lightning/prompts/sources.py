"""Prompts from local files and from data sets of the Hugging Face Hub, mixed and split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from es2_lightning.errors import UserError
from es2_lightning.prompts.drawing import Reservoir, mix
from es2_lightning.prompts.hub import read_hub_rows
from es2_lightning.prompts.looks_harmful import read_looks_harmful
from es2_lightning.prompts.prompt import Kind, Prompt, PromptSplits
from es2_lightning.prompts.row_files import BadRow, Row, read_rows
from es2_lightning.prompts.rows import prompt_from_row
from es2_lightning.prompts.source_settings import SourceSettings, parse_sources
from es2_lightning.prompts.splitting import SplitSettings, split_prompts

log = logging.getLogger(__name__)
KEY = "data.source"
BAD_ROWS = ("error", "drop")
OWN_WORDS = (
    "harmful",
    "harmless",
    "labelled",
    "looks_harmful",
    "column",
    "response",
    "target",
    "refusal",
    "most",
    "bad_rows",
)
Sources = str | Mapping[str, Any] | Sequence[Any]
"""A path; {path, …}; or a list of them."""


class MixedPrompts:
    """Prompts from one or several sources of each class, split by their words.

    A source is a path, or a mapping with `path` and optionally

    - `column`, or `columns`, joined into the prompt; `response`, `target`, `refusal` and `system`,
      columns of the right answer (of a harmful prompt: a harmful completion, for circuit
      breakers), of the beginning of an answer for attacks that aim at it, of a refusal, and of a
      system turn; or `messages`, a column with a whole conversation, of which `most_turns` turns
      of the user are kept;
    - `label`: a column that says which class a row belongs to, or {column, harmful: […],
      harmless: […], ignored: […]} with the labels of each class;
    - `weight`: its share among the sources of its class; all prompts of all sources without;
    - `most`: the most prompts, drawn at random;
    - `name`, `revision`, `split` (`train`) and `load` (further words), for the Hub, as
      `datasets.load_dataset` takes them.

    A path is a `.jsonl`, `.csv`, `.parquet` or `.txt` file (one prompt a line), a local folder in
    the Hub's layout, or a Hub id. Files are read row by row.

    Args:
        harmful: Where the harmful prompts come from.
        harmless: Where the harmless ones come from.
        labelled: Where prompts of both classes come from, told apart by `label`.
        looks_harmful: Where harmless prompts that look harmful come from, to measure over-refusal
            by. A path alone is read in XSTest's, OR-Bench's or JailbreakBench's layout, or with a
            `prompt` column.
        column: The prompt's column, for sources that do not say.
        response: The right answer's column, for harmless sources that do not say.
        target: The column of an answer's beginning, for harmful sources that do not say.
        refusal: The column of refusals, for harmful sources that do not say; where there is none,
            methods that teach refusals take this project's own.
        most: The most prompts of each source that does not say; the memory that is needed grows
            with it and not with the file.
        bad_rows: What is done about a row that cannot be read or has no prompt: `error`, or
            `drop`, which counts it.
        seed: Of the draw and of the split.
        split: What `SplitSettings` takes.

    Raises:
        UserError: A word or value is not accepted.
    """

    def __init__(
        self,
        *,
        harmful: Sources | None = None,
        harmless: Sources | None = None,
        labelled: Sources | None = None,
        looks_harmful: Sources | None = None,
        column: str = "prompt",
        response: str | None = None,
        target: str | None = None,
        refusal: str | None = None,
        most: int | None = None,
        bad_rows: Literal["error", "drop"] = "error",
        seed: int = 0,
        **split: Any,
    ) -> None:
        accepted = [field.name for field in fields(SplitSettings)]
        if unknown := sorted(split.keys() - set(accepted)):
            listed = ", ".join((*OWN_WORDS, *accepted))
            raise UserError(f"{KEY}.{unknown[0]} is no word of it. Accepted: {listed}.")
        self.split = SplitSettings(**split, seed=seed)
        if bad_rows not in BAD_ROWS:
            raise UserError(
                f"{KEY}.bad_rows={bad_rows} is not accepted. Accepted: {' | '.join(BAD_ROWS)}."
            )
        self.bad_rows = bad_rows
        self.seed = seed
        plain = {"column": column, "most": most}
        defaults: dict[Kind, dict[str, Any]] = {
            "harmful": {**plain, "target": target, "refusal": refusal},
            "harmless": {**plain, "response": response},
        }
        self.sources: dict[Kind, list[SourceSettings]] = {}
        both: tuple[tuple[Kind, Sources | None], ...]
        both = (("harmful", harmful), ("harmless", harmless))
        for kind, node in both:
            nodes = {kind: node, "labelled": labelled}
            self.sources[kind] = [
                source
                for name, one in nodes.items()
                if one is not None
                for source in parse_sources(
                    one,
                    kind=kind,
                    key=f"{KEY}.{name}",
                    defaults=defaults[kind],
                    labelled=name == "labelled",
                )
            ]
            if not self.sources[kind]:
                raise UserError(
                    f"{KEY}.{kind} has no value. Accepted: a path or a Hub id, {{path: …, column: "
                    f"…}}, a list of them, or {KEY}.labelled with both classes"
                )
        self.layout_file: Path | None = None
        if looks_harmful is not None:
            found = parse_sources(
                looks_harmful, kind="looks_harmful", key=f"{KEY}.looks_harmful", defaults=plain
            )
            if isinstance(looks_harmful, str) and found[0].file is not None:
                self.layout_file = found[0].file
            else:
                self.sources["looks_harmful"] = found

    def load(self) -> PromptSplits:
        """Read or download, check, mix and split the prompts.

        Raises:
            UserError: A file or data set cannot be had, a row is wrong, or a class is empty.
        """
        looks_harmful = self._collect("looks_harmful")
        if self.layout_file is not None:
            looks_harmful = read_looks_harmful(self.layout_file)
        return split_prompts(
            self._collect("harmful"),
            self._collect("harmless"),
            settings=self.split,
            looks_harmful=looks_harmful,
        )

    def _collect(self, kind: Kind) -> list[Prompt]:
        """The prompts of all sources of a class."""
        sources = self.sources.get(kind, [])
        groups = [self._read(source, kind) for source in sources]
        if any(source.weight is not None for source in sources):
            sizes = [len(group) for group in groups]
            weights = [1.0 if s.weight is None else float(s.weight) for s in sources]
            groups = mix(groups, weights, seed=self.seed)
            log.info(
                "The %s prompts are mixed: %s",
                kind,
                "; ".join(
                    f"{len(group)} of {size} of {source.path} (weight {weight:g})"
                    for group, size, source, weight in zip(
                        groups, sizes, sources, weights, strict=True
                    )
                ),
            )
        return [prompt for group in groups for prompt in group]

    def _read(self, source: SourceSettings, kind: Kind) -> list[Prompt]:
        dropped = _DroppedRows(keep_going=self.bad_rows == "drop")
        reservoir = Reservoir(source.most, seed=self.seed)
        columns = source.columns
        if source.file is not None and source.file.suffix == ".txt":
            columns = type(columns)(prompt=("line",))
        for number, row in self._rows(source, dropped):
            try:
                if source.labels is not None:
                    labelled = source.labels.kind(row, where=source.path, number=number)
                    if labelled != kind:
                        continue
                prompt = prompt_from_row(
                    row, where=source.path, number=number, kind=kind, columns=columns
                )
            except BadRow as error:
                dropped(error)
                continue
            reservoir.add(prompt)
        dropped.report(source.key)
        prompts = reservoir.prompts()
        if not prompts:
            of_class = "" if source.labels is None else f" {kind}"
            raise UserError(f"{source.key}: the file has no{of_class} prompts")
        if len(prompts) < reservoir.seen:
            log.info(
                "%s: %d of %d %s prompts are drawn", source.key, len(prompts), reservoir.seen, kind
            )
        return prompts

    def _rows(self, source: SourceSettings, dropped: _DroppedRows) -> Iterable[Row]:
        if source.file is None:
            return read_hub_rows(source)
        columns = set(source.columns.names)
        if source.labels is not None:
            columns.add(source.labels.column)
        return read_rows(source.file, key=source.key, columns=sorted(columns), on_bad=dropped)


class _DroppedRows:
    """Counts bad rows, or raises the first.

    Args:
        keep_going: Count them.
    """

    def __init__(self, *, keep_going: bool) -> None:
        self._keep_going = keep_going
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, int] = {}

    def __call__(self, error: BadRow) -> None:
        if not self._keep_going:
            raise error
        self._reasons[error.reason] += 1
        self._first.setdefault(error.reason, error.number)

    def report(self, key: str) -> None:
        """Say how many rows are left out, and why."""
        if self._reasons:
            log.warning(
                "%s: %d rows are dropped: %s",
                key,
                self._reasons.total(),
                "; ".join(
                    f"{count} × {reason} (first in row {self._first[reason]})"
                    for reason, count in self._reasons.most_common()
                ),
            )
