"""What was found in the prompts is logged once, and stands in the run's folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from es2_lightning.config.loaded_prompts import load_prompts, read_prompts


def test_findings_are_logged_and_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = {"_target_": f"{SOURCE}", "validation": 0.15, "test": 0.15}
    for kind in ("harmful", "harmless"):
        lines = [f"{kind} {word}" for word in ("alpha", "beta", "gamma", "delta", "ALPHA", "omega")]
        (tmp_path / f"{kind}.txt").write_text("\n".join(lines), encoding="utf-8")
        source[kind] = str(tmp_path / f"{kind}.txt")
    with caplog.at_level(logging.INFO):
        splits = load_prompts(source, tmp_path)
        load_prompts(
            {"_target_": "es2_lightning.organism.prompts.OrganismPrompts"}, tmp_path / "no"
        )
    assert "1 harmful prompts are copies of others and are dropped" in caplog.text
    content = json.loads((tmp_path / "prompts.json").read_text(encoding="utf-8"))
    assert content["sizes"]["harmful"]["train"] == len(splits.train.harmful)
    copies = [one for one in content["findings"] if one["what"] == "copy"]
    assert [(one["kind"], one["action"]) for one in copies] == [
        ("harmful", "dropped"),
        ("harmless", "dropped"),
    ]
    assert not (tmp_path / "no").exists()


def test_the_same_prompts_are_read_once_until_their_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"prompt {word}" for word in "abcdefghijkl"))
    source = {"_target_": SOURCE, "harmful": str(file), "harmless": str(file)}
    (tmp_path / "other.txt").write_text("\n".join(f"other {word}" for word in "abcdefghijkl"))
    source["harmless"] = str(tmp_path / "other.txt")
    splits = read_prompts(source)
    assert read_prompts(dict(source)) is splits
    assert read_prompts({**source, "seed": 5}) is not splits
    splits = read_prompts(source)
    file.write_text("\n".join(f"prompt {word}" for word in "abcdefghijklm"))
    changed = read_prompts(source)
    assert len(changed.train.harmful) + len(changed.test.harmful) > len(splits.train.harmful)
    assert changed is not splits and read_prompts(source) is changed


SOURCE = "es2_lightning.prompts.sources.MixedPrompts"
