"""What the source of a class tells of its words is what Python tells when it is imported."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

from es2_lightning.config.location import conf_dir
from es2_lightning.config.signatures import accepted_words, missing_package


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


SHIPPED = sorted(
    {
        target
        for path in conf_dir().rglob("*.yaml")
        for target in targets(yaml.safe_load(path.open()))
    }
)
LIBRARIES = [
    "lightning.Trainer",
    "lightning.pytorch.callbacks.EarlyStopping",
    "torch.optim.Adam",
    "torch.optim.Muon",
    "torch.optim.SGD",
]


@pytest.mark.parametrize("target", SHIPPED + LIBRARIES)
def test_the_source_tells_what_python_tells(target: str) -> None:
    parameters = inspect.signature(get_object(target)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        assert accepted_words(target) is None
    else:
        assert accepted_words(target) == [p.name for p in parameters]


SOURCE = """
from dataclasses import dataclass, field
from functools import wraps
from typing import ClassVar
from .sibling import Base, Missing
from . import sibling

class Plain: pass
class Own:
    def __init__(self, a, *, b=1): pass
class Inherits(Own): pass
class InheritsAcross(Base): pass
class InheritsUnknown(Missing): pass
class TakesAll:
    def __init__(self, **words): pass
class Two(Own, Plain): pass
class New:
    def __new__(cls, z): pass
    def __init__(self, a): pass
@dataclass
class Data:
    a: int
    b: ClassVar[int] = 2
    c: int = 3
@dataclass
class More(Data):
    d: int = 4
    a: int = 5
@dataclass
class FromPlain(Own):
    d: int = 4
@dataclass
class Initless:
    a: int = field(init=False, default=1)
def changes(f): return lambda other: f
class Decorated:
    @changes
    def __init__(self, a): pass
@changes
def decorated(a): pass
def function(a, b=1): pass
def positional(a, /, b): pass
async def later(a): pass
if len(SOURCE):
    class Own2(Own): pass
class Twice: pass
class Twice:
    def __init__(self, b): pass
made = type("made", (), {})
"""
SIBLING = "class Base:\n    def __init__(self, far): pass\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "package_that_raises"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "module.py").write_text(SOURCE)
    (folder / "sibling.py").write_text(SIBLING)
    (folder / "broken.py").write_text("class (")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_nothing_is_imported_and_what_is_not_followed_is_left_open(package: str) -> None:
    told = {
        "Plain": [],
        "Own": ["a", "b"],
        "Inherits": ["a", "b"],
        "InheritsAcross": ["far"],
        "Data": ["a", "c"],
        "More": ["a", "c", "d"],
        "function": ["a", "b"],
    }
    for name, words in told.items():
        assert accepted_words(f"{package}.module.{name}") == words, name
    left_open = [
        "InheritsUnknown", "TakesAll", "Two", "New", "FromPlain", "Initless", "Decorated",
        "decorated", "positional", "later", "Own2", "Twice", "made", "nowhere", "Own.method",
        "sibling",
    ]  # fmt: skip
    for name in left_open:
        assert accepted_words(f"{package}.module.{name}") is None, name
    assert accepted_words(f"{package}.broken.Any") is None
    assert accepted_words(package) is None


def test_missing_packages() -> None:
    assert missing_package("nosuch.module.Name") == "nosuch"
    assert missing_package("torch.optim.AdamW") is None
    assert missing_package("not a path") == "not a path"
