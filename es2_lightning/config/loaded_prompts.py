"""The prompts that a command works on: loaded, with what was found in them logged and written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es2_lightning.config.objects import build

if TYPE_CHECKING:
    from es2_lightning.prompts.prompt import PromptSplits

log = logging.getLogger(__name__)
FILE = "prompts.json"
"""In a run's folder: counts, and every prompt that was dropped, moved, rewritten or is doubtful."""


_KEPT: dict[str, PromptSplits] = {}


def read_prompts(source: Mapping[str, Any]) -> PromptSplits:
    """The prompts of the config node `data.source`, as the last call gave them where it is the
    same node and no file that it names has changed: a config's check and its run, or the jobs of a
    sweep, read them once.

    Raises:
        UserError: They cannot be read.
    """
    key = json.dumps([source, list(_states_of_files(source))], default=str)
    if key not in _KEPT:
        splits: PromptSplits = build(source, "data.source").load()
        _KEPT.clear()
        _KEPT[key] = splits
    return _KEPT[key]


def load_prompts(source: Mapping[str, Any], folder: Path | None = None) -> PromptSplits:
    """The prompts of the config node `data.source`.

    Args:
        folder: Where `prompts.json` is written, if anywhere.

    Raises:
        UserError: They cannot be read.
    """
    splits = read_prompts(source)
    if splits.findings is not None:
        splits.findings.log(log)
        if folder is not None:
            (folder / FILE).write_text(splits.findings.as_json(), encoding="utf-8")
    return splits


def _states_of_files(value: Any) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of each file that a value names, or that lies in a folder that
    it names."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _states_of_files(item)
    elif isinstance(value, str):
        try:
            path = Path(value).expanduser()
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                state = file.stat()
                yield str(file), state.st_size, state.st_mtime_ns
        except (OSError, ValueError, RuntimeError):
            return  # Most words are no file's name.
