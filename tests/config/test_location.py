from __future__ import annotations

from pathlib import Path

import pytest

from es2_lightning.config.location import _conf_dir, conf_dir

OURS = '[project]\nname = "es2-lightning"\n'


def _folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root / "es2_lightning"


def test_the_checkouts_comes_first(tmp_path: Path) -> None:
    package = _folders(tmp_path, "conf", "es2_lightning/conf")
    (tmp_path / "pyproject.toml").write_text(OURS)
    assert _conf_dir(package) == tmp_path / "conf"


def test_another_projects_conf_is_not_ours(tmp_path: Path) -> None:
    package = _folders(tmp_path, "conf", "es2_lightning/conf")
    assert _conf_dir(package) == package / "conf"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert _conf_dir(package) == package / "conf"


def test_a_damaged_installation(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Install the package again"):
        _conf_dir(tmp_path / "es2_lightning")


def test_here() -> None:
    assert conf_dir() == Path(__file__).resolve().parents[2] / "conf"
