from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from es2_lightning.config.run_folder import LAST_CHECKPOINT, new_folder, run_folder
from es2_lightning.errors import UserError


def _checkpoint(folder: Path, *, age: float) -> None:
    file = folder / LAST_CHECKPOINT
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (1e9 - age, 1e9 - age))


def test_runs_that_start_in_the_same_second_get_different_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path), range(16)))
    assert len(set(folders)) == 16
    assert all(folder.is_dir() for folder in folders)


def test_looking_makes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    assert run_folder(root=root, reserve=False).parent == root
    assert not root.exists()


def test_last_is_the_run_whose_checkpoint_is_newest(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "2026-01-02", age=50)
    _checkpoint(tmp_path / "2026-01-01", age=10)
    (tmp_path / "2026-01-03" / "checkpoints").mkdir(parents=True)
    assert run_folder("last", root=tmp_path) == tmp_path / "2026-01-01"


def test_a_checkpoint_by_name_gets_a_new_folder(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "old", age=10)
    assert run_folder("some/file.ckpt", root=tmp_path).name != "old"


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Looked for .*/\*/checkpoints/last\.ckpt"):
        run_folder("last", root=tmp_path)
