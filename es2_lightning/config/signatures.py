"""Which words a class or function takes, read from its source: importing torch takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

MOST_STEPS = 12
"""Re-exports and base classes that are followed."""
KEEPS_THE_SIGNATURE = {"_defaults_from_env_vars"}
"""Decorators of `__init__` with functools.wraps: that of Lightning's Trainer."""
EMPTY_BASES = {"object", "ABC", "Protocol"}


def accepted_words(target: str) -> list[str] | None:
    """The words that `target`, a dotted path, takes by name, as `inspect.signature` tells them.

    Nothing is imported.

    Returns:
        None where the source alone does not say: it takes any word, is decorated, or is made in
        another way than by a plain `class` or `def`; or it is not found.
    """
    module, names = _module_of(target)
    if module is None or len(names) != 1:
        return None
    return _words(module, names[0], MOST_STEPS)


def missing_package(target: str) -> str | None:
    """The top of a dotted path, if no such module is installed."""
    top = target.partition(".")[0]
    return None if top.isidentifier() and find_spec(top) is not None else top


@dataclass(frozen=True)
class _Module:
    """A module's source."""

    name: str
    tree: ast.Module
    is_package: bool


@cache
def _read(name: str) -> _Module | None:
    spec = _spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return _Module(name, tree, spec.submodule_search_locations is not None)


@cache
def _spec(name: str) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, which would import the packages above."""
    parent, _, _ = name.rpartition(".")
    if not parent:
        return find_spec(name) if name.isidentifier() else None
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, list(above.submodule_search_locations))


def _module_of(target: str) -> tuple[_Module | None, list[str]]:
    """The longest module that a dotted path begins with, and the names after it."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        if _spec(name) is not None:
            return _read(name), parts[end:]
    return None, parts


def _words(module: _Module, name: str, steps: int) -> list[str] | None:
    found = _definition(module, name, steps)
    if found is None:
        return None
    module, node, steps = found
    if isinstance(node, ast.ClassDef):
        return _of_class(module, node, steps)
    return None if node.decorator_list else _of_arguments(node.args)


def _definition(
    module: _Module, name: str, steps: int
) -> tuple[_Module, ast.ClassDef | ast.FunctionDef, int] | None:
    """Where a name that stands at the top of a module is defined, and the steps that are left."""
    if steps == 0:
        return None
    definitions = [node for node in module.tree.body if name in _defines(node)]
    if len(definitions) != 1:
        return None
    (node,) = definitions
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return module, node, steps
    if isinstance(node, ast.ImportFrom):
        (original,) = (a.name for a in node.names if (a.asname or a.name) == name)
        source = _read(_absolute(module, node))
        return None if source is None else _definition(source, original, steps - 1)
    return None


def _defines(node: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a module binds, as far as they are followed."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.If, ast.Try, ast.With, ast.For)):
        # Made in a way that is not followed: that it stands here too leaves the rest in doubt.
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id
            elif isinstance(part, (ast.ClassDef, ast.FunctionDef)):
                yield part.name
            elif isinstance(part, (ast.Import, ast.ImportFrom)):
                yield from (alias.asname or alias.name for alias in part.names)


def _absolute(module: _Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def _of_class(module: _Module, node: ast.ClassDef, steps: int) -> list[str] | None:
    own = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    if node.keywords or "__new__" in own:
        return None
    bases = [base.id if isinstance(base, ast.Name) else "" for base in node.bases]
    bases = [base for base in bases if base not in EMPTY_BASES]
    if node.decorator_list:
        return None if "__init__" in own else _of_dataclass(module, node, bases, steps)
    if "__init__" in own:
        init = own["__init__"]
        names = [part.id if isinstance(part, ast.Name) else "" for part in init.decorator_list]
        return _of_arguments(init.args, bound=True) if set(names) <= KEEPS_THE_SIGNATURE else None
    if not bases:
        return []
    return _words(module, bases[0], steps - 1) if len(bases) == 1 else None


def _of_dataclass(
    module: _Module, node: ast.ClassDef, bases: list[str], steps: int
) -> list[str] | None:
    if not _is_dataclass(node):
        return None
    words = []
    if bases:
        # The fields of a base that is a dataclass come first; of another one nothing comes.
        base = _definition(module, bases[0], steps - 1) if len(bases) == 1 else None
        if base is None or not isinstance(base[1], ast.ClassDef) or not _is_dataclass(base[1]):
            return None
        inherited = _of_class(base[0], base[1], base[2])
        if inherited is None:
            return None
        words += inherited
    for part in node.body:
        if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(part.annotation):
            continue
        if isinstance(part.value, ast.Call) and any(k.arg == "init" for k in part.value.keywords):
            return None
        if part.target.id not in words:
            words.append(part.target.id)
    return words


def _is_dataclass(node: ast.ClassDef) -> bool:
    if len(node.decorator_list) != 1:
        return False
    (decorator,) = node.decorator_list
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "dataclass"


def _of_arguments(arguments: ast.arguments, *, bound: bool = False) -> list[str] | None:
    if arguments.kwarg is not None or arguments.posonlyargs:
        return None
    words = [argument.arg for argument in arguments.args][1 if bound else 0 :]
    return words + [argument.arg for argument in arguments.kwonlyargs]
