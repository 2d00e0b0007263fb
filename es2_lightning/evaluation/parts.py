"""What an evaluation has measured so far, on disk, so that a killed one goes on from there.

One file for each model, attack and setting: a header, then a line for each prompt, appended as soon
as it is attacked. A torn last line, as a kill leaves it, is ignored. A file that a setting names
counts with its content: under the same path it may hold something else next time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from math import inf, isfinite
from pathlib import Path
from typing import Any

import es2_lightning
from es2_lightning.evaluation.attacks.attack import Attacked, Generation
from es2_lightning.evaluation.capability.capability import CapabilityFigure
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.prompts.prompt import Prompt

Identity = tuple[str, str | None, str | None]


def identity(prompt: Prompt) -> Identity:
    """All of a prompt that its results depend on: attacks aim at its target, judges compare with
    its response."""
    return prompt.conversation, prompt.response, prompt.target


def file_contents(settings: Any) -> list[str]:
    """A digest of each file that a value names, in the order of the values."""
    if isinstance(settings, Mapping):
        return [found for value in settings.values() for found in file_contents(value)]
    if isinstance(settings, (list, tuple)):
        return [found for value in settings for found in file_contents(value)]
    if not isinstance(settings, str):
        return []
    try:
        content = Path(settings).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError):
        return []  # Most words are no file's name.
    return [hashlib.sha256(content).hexdigest()[:12]]


@cache
def code_digest() -> str:
    """12 hex digits of this package's own code: what other code measured is not taken over."""
    package = Path(es2_lightning.__file__).parent
    found = hashlib.sha256()
    for floor in ("prompts", "backbone", "evaluation", "organism"):
        for path in sorted((package / floor).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def digest(value: Any) -> str:
    """12 hex digits of plain JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass
class Part:
    """One attack on one model.

    Attributes:
        path: The file.
        key: All that its results depend on: `common` (the same for all attacks of an evaluation),
            `attack` and `settings`.
        header: `notes`, `budgets`, `not_possible`; None before `begin`.
        attacked: By `identity` of the prompt.
    """

    path: Path
    key: Mapping[str, Any]
    header: dict[str, Any] | None = None
    attacked: dict[Identity, Attacked] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's config, with a digest of each file that it names."""
        return {**self.key["settings"], "file_contents": self.key["files"]}

    def missing(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that are still to be attacked; none where the attack is not possible."""
        if self.header is not None and self.header["not_possible"]:
            return []
        return [prompt for prompt in prompts if identity(prompt) not in self.attacked]

    def begin(
        self,
        *,
        notes: Mapping[str, Any] | None = None,
        budgets: Mapping[str, tuple[float, ...]] | None = None,
        not_possible: str | None = None,
    ) -> None:
        """Write the header, anew if the attack was begun before."""
        self.header = {
            "notes": json.loads(json.dumps(notes or {}, default=str)),
            "budgets": {axis: list(values) for axis, values in (budgets or {}).items()},
            "not_possible": not_possible,
        }
        lines = [{"key": self.key, **self.header}, *self._rows(self.attacked)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(_line(line) for line in lines), encoding="utf-8")
        temporary.replace(self.path)

    def append(self, prompts: Sequence[Prompt], attacked: Sequence[Attacked]) -> None:
        """Keep what was made of some prompts."""
        made = {identity(prompt): one for prompt, one in zip(prompts, attacked, strict=True)}
        rows = [_line(row) for row in self._rows(made)]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(rows)
        # As it will be read: results are the same whether a part was measured or taken over.
        self.attacked |= dict(map(_prompt_and_attacked, map(json.loads, rows)))

    @staticmethod
    def _rows(attacked: Mapping[Identity, Attacked]) -> Iterator[dict[str, Any]]:
        for prompt, one in attacked.items():
            yield {"prompt": list(prompt), "attacked": _plain(asdict(one))}


class PartsFolder:
    """The parts of one evaluation folder.

    Args:
        folder: Where they are kept.
        earlier: Other such folders. A part that is asked for and not there is copied from the
            latest of them that has it.
    """

    def __init__(self, folder: Path, *, earlier: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.earlier = earlier

    def part(
        self, *, model: str, common: Mapping[str, Any], attack: str, settings: Mapping[str, Any]
    ) -> Part:
        """The part of that key, with what it holds already.

        Args:
            model: The label, for the file's name only.
            common: What all attacks' results depend on: weights, prompts, judge, generation.
            attack: The attack's name.
            settings: The attack's config.
        """
        key = {
            "common": dict(common),
            "attack": attack,
            "settings": dict(settings),
            "files": file_contents(settings),
        }
        path = self._bring(f"{model}-{attack}-{digest(key)}.jsonl")
        return _read(path) or Part(path, key)

    def capability(
        self, *, model: str, key: Mapping[str, Any], measure: Callable[[], list[CapabilityFigure]]
    ) -> list[CapabilityFigure]:
        """Capability figures as an earlier command measured them, else measured now and kept.

        Args:
            model: The label, for the file's name only.
            key: All that they depend on.
            measure: Called where they are not known.
        """
        path = self._bring(f"{model}-capability-{digest(key)}.json")
        if not path.is_file():
            figures = [_plain(asdict(figure)) for figure in measure()]
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(figures), "utf-8")
            temporary.replace(path)
        return [
            CapabilityFigure(**(row | {"estimate": Estimate(**_numbers(row["estimate"]))}))
            for row in json.loads(path.read_text("utf-8"))
        ]

    def _bring(self, name: str) -> Path:
        path = self.folder / name
        found = next((f / name for f in reversed(self.earlier) if (f / name).is_file()), None)
        if not path.is_file() and found is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            shutil.copyfile(found, temporary)
            temporary.replace(path)
        return path

    def others(
        self,
        *,
        common: Mapping[str, Any],
        without: Sequence[str],
        like: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, Part]:
        """Parts of other attacks on the same terms, by attack, the newest of each.

        Args:
            common: The terms.
            without: Attacks to leave out.
            like: Another model's settings by attack (`Part.settings`): only what was measured
                with the same, since both stand in one row. None: whatever there is.
        """
        found: dict[str, Part] = {}
        paths = sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        for path in paths:
            part = _read(path)
            if part is None or part.key["common"] != dict(common):
                continue
            attack = part.key["attack"]
            if attack in without or (like is not None and part.settings != like.get(attack)):
                continue
            found[attack] = part
        return found


def _read(path: Path) -> Part | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    lines = []
    for text in content.splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    if not lines or "files" not in lines[0].get("key", {}):
        return None
    header = {name: value for name, value in lines[0].items() if name != "key"}
    attacked = dict(map(_prompt_and_attacked, lines[1:]))
    part = Part(path, lines[0]["key"], header, attacked)
    if not content.endswith(b"\n"):
        # What is appended must not continue a torn line.
        part.begin(**{n: v for n, v in header.items() if n != "budgets"}, budgets=header["budgets"])
    return part


def _prompt_and_attacked(line: Mapping[str, Any]) -> tuple[Identity, Attacked]:
    return _identity(line["prompt"]), _attacked(line["attacked"])


def _identity(values: Sequence[str | None]) -> Identity:
    text, response, target = values
    return str(text), response, target


def _attacked(row: Mapping[str, Any]) -> Attacked:
    return Attacked(
        generations=tuple(Generation(**generation) for generation in row["generations"]),
        figures={name: _number(value) for name, value in row["figures"].items()},
        layer_figures={
            name: [_number(value) for value in values]
            for name, values in row["layer_figures"].items()
        },
        needed={axis: _number(value) for axis, value in row["needed"].items()},
    )


def _line(row: Mapping[str, Any]) -> str:
    # In ASCII: whatever a model or a file brought can be written, and read line by line.
    return json.dumps(row) + "\n"


def _plain(value: Any) -> Any:
    """JSON has no word for infinity."""
    if isinstance(value, float) and not isfinite(value):
        return "inf" if value == inf else str(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if name == "n" else float(value) for name, value in row.items()}


def _number(value: Any) -> float:
    return float(value)
