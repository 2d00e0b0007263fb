"""Samples as they are kept and shown; what they are of is tested in tests/train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from es2_lightning.training.samples import COLUMNS, _read, _tell, _write

ROW: dict[str, Any] = dict.fromkeys(COLUMNS, 0) | {
    "kind": "general",
    "prompt": "one\u2028two",
    "output": "# a\n<b>c</b>\x85d",
}


def test_what_a_model_writes_breaks_no_line_of_the_file(tmp_path: Path) -> None:
    _write(tmp_path / "samples.jsonl", [ROW, ROW])
    with (tmp_path / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1, "ki')
    assert _read(tmp_path / "samples.jsonl") == [ROW, ROW]


def test_what_a_model_writes_is_no_markdown(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    told: list[str] = []
    logger.experiment.add_text = lambda name, text, **words: told.append(text)
    _tell(logger, [ROW], [ROW], step=1)
    (text,) = told
    shown = [line for line in text.split("\n") if line.startswith("    ")]
    assert shown == ["    one", "    two", "    # a", "    <b>c</b>", "    d"]
