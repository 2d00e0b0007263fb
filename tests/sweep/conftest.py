"""A toy command's sweeps in this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ..commands import run_command

TOY_SWEEP = Path(__file__).parent / "toy_sweep.py"
Toy = Callable[..., list[str]]


@pytest.fixture(scope="session")
def toy_sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The toy command's module, with a config folder of its own."""
    conf = tmp_path_factory.mktemp("toy_sweep")
    os.environ["TOY"] = str(conf)
    spec = importlib.util.spec_from_file_location("toy_sweep", TOY_SWEEP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_sweep"] = module
    spec.loader.exec_module(module)
    (conf / "toy_sweep.yaml").write_text(module.CONF)
    yield module
    del os.environ["TOY"]


@pytest.fixture
def toy(toy_sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """Runs the command in an empty folder; gives the jobs that ran: number, x, where they began."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> list[str]:
        Path("ran.txt").unlink(missing_ok=True)
        run_command(toy_sweep.main, *words, monkeypatch=monkeypatch, status=status)
        return Path("ran.txt").read_text().splitlines() if Path("ran.txt").exists() else []

    return run
