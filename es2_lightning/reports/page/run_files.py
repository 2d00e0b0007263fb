"""What a run left in its folder, read for a page: whatever is missing is left out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from es2_lightning.config import job_record
from es2_lightning.config.earlier_run import ADAPTER, CONFIG, LAYERS, MODEL
from es2_lightning.config.evaluated_run import NAME, choices_of
from es2_lightning.errors import UserError
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.saved_results import RESULTS, read_comparison
from es2_lightning.prompts.findings import Finding, Findings
from es2_lightning.prompts.surface import Separability

EVALUATION, METRICS, STAGES, VERSIONS = (
    "evaluation",
    "metrics.jsonl",
    "stages.json",
    "versions.json",
)
PROMPTS, SAMPLES = "prompts.json", "samples.jsonl"
OVERRIDES = Path(".hydra") / "overrides.yaml"
HYDRA = Path(".hydra") / "hydra.yaml"
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError)


@dataclass(frozen=True)
class RunFiles:
    """A run of `train`, or an evaluation of a model.

    Attributes:
        folder: Where it is, absolute.
        command: The command that wrote it: `train` or `evaluate`.
        words: The overrides that it was started with; None where that is lost.
        measured_with: Those of the `evaluate` that measured a training run anew.
        config: The whole config; empty where it is lost.
        choices: The choices of its config groups.
        versions: What it was made with.
        layers: Those that were separated.
        depth: How many the model has.
        stages: How each stage ended.
        metrics: What training logged, a dict for each step.
        samples: What the model answered while it was trained, a dict for each answer.
        findings: What was found in its prompts; None where nothing was looked for.
        comparison: What was measured; None: nothing yet.
        began: When its config was written.
        complete: Whether it came to its end.
        job: Its number in a sweep.
        problems: What could not be read, as sentences.
    """

    folder: Path
    command: str = "train"
    words: tuple[str, ...] | None = None
    measured_with: tuple[str, ...] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[int] = ()
    depth: int | None = None
    stages: Sequence[Mapping[str, Any]] = ()
    metrics: Sequence[dict[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    findings: Findings | None = None
    comparison: Comparison | None = None
    began: datetime | None = None
    complete: bool = True
    job: int | None = None
    problems: Sequence[str] = ()

    @property
    def name(self) -> str:
        """As runs are told apart: the folder's, with its parent's where it is a bare number."""
        name = self.folder.name
        if name == EVALUATION or name.isdigit():
            return f"{self.folder.parent.name}/{name}"
        return name

    @property
    def repeat(self) -> str | None:
        """The command line that composes the same config, quoted for a shell."""
        return None if self.words is None else command_line(self.command, self.words)

    @property
    def measure_again(self) -> str | None:
        """The one that measures it as it was measured last, where that was another command."""
        if self.measured_with is None:
            return None
        return command_line("evaluate", self.measured_with)


def command_line(command: str, words: Sequence[str]) -> str:
    """A command of this package as a shell takes it."""
    return shlex.join(["python", "-m", f"es2_lightning.{command}", *words])


def read_run_files(folder: Path) -> RunFiles:
    """Read a run's folder; loads no weights, and never fails for what is missing or damaged."""
    folder = folder.absolute()
    problems: list[str] = []
    config = _read(folder / CONFIG, problems, {})
    command = "train" if "loss" in config or not (folder / RESULTS).exists() else "evaluate"
    results = folder if command == "evaluate" else folder / EVALUATION
    separated = _separated(folder, config, problems)
    comparison = None
    try:
        comparison = read_comparison(results)
    except UserError as error:
        problems.append(str(error))
    saved = folder / CONFIG
    began = datetime.fromtimestamp(saved.stat().st_mtime) if saved.is_file() else None
    record = job_record.read(folder)
    complete = comparison is not None
    if command == "train":
        trained = (folder / ADAPTER).is_dir() or (folder / MODEL).is_dir()
        measures = (config.get("evaluate") or {}).get("enabled", False)
        complete = trained and (complete or not measures)
    return RunFiles(
        folder=folder,
        command=command,
        words=_words(folder, problems),
        measured_with=_measured_with(folder, problems) if command == "train" else None,
        config=config,
        choices=choices_of(str(folder)),
        versions=_read(folder / VERSIONS, problems, {}),
        layers=separated.get("separated", []),
        depth=separated.get("depth"),
        stages=_read(folder / STAGES, problems, []),
        metrics=_metrics(folder),
        samples=_samples(folder),
        findings=_findings(folder, problems),
        comparison=comparison,
        began=began,
        complete=complete,
        job=None if record is None else record.number,
        problems=problems,
    )


def _separated(folder: Path, config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    run = config.get("run")
    path = folder / LAYERS
    if not path.exists() and run:
        path = Path(run) / LAYERS
    return _read(path, problems, {})


def _words(folder: Path, problems: list[str]) -> tuple[str, ...] | None:
    found = _read(folder / OVERRIDES, problems, [], missing=None)
    if found is None:
        record = job_record.read(folder)
        found = None if record is None else list(record.words)
    if found is None:
        return None
    # Where a run went on from a checkpoint, its repetition begins anew; what a run implies for
    # `evaluate` is implied again.
    left_out = ("ckpt_path=", f"{NAME}='${{run_model:")
    words = [str(word) for word in found if not str(word).startswith(left_out)]
    if any(word.startswith("sweep=") for word in words):
        # A sweep's values would start all of its jobs.
        words.append("hydra.mode=RUN")
    return tuple(words)


def _measured_with(folder: Path, problems: list[str]) -> tuple[str, ...] | None:
    own, later = folder / OVERRIDES, folder / EVALUATION / OVERRIDES
    if not later.exists() or (own.exists() and own.stat().st_mtime > later.stat().st_mtime):
        return None
    return _words(folder / EVALUATION, problems)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    if not (folder / METRICS).exists():
        return []
    from es2_lightning.training.run_metrics import RunMetrics

    return RunMetrics(folder).read()


def _samples(folder: Path) -> list[dict[str, Any]]:
    found = []
    try:
        # Not splitlines, which also breaks at characters that JSON leaves as they are.
        lines = (folder / SAMPLES).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        try:
            row = json.loads(line)
            found.append({name: row[name] for name in ("step", "kind", "prompt", "output")})
        except DAMAGED:
            continue  # An empty line, or the one at which a run was killed.
    return found


def _findings(folder: Path, problems: list[str]) -> Findings | None:
    found = _read(folder / PROMPTS, problems, {})
    if not found:
        return None
    try:
        return Findings(
            found=tuple(Finding(**one) for one in found["findings"]),
            sizes=found["sizes"],
            evaluation=found["evaluation_sets"],
            surface={name: Separability(**of) for name, of in found["surface"].items()},
            matched=tuple(found["matched_by"]),
        )
    except DAMAGED as error:
        problems.append(f"{folder / PROMPTS} cannot be read: {error}.")
        return None


def _read(path: Path, problems: list[str], otherwise: Any, **missing: Any) -> Any:
    """What a JSON or YAML file holds; `otherwise` where it is damaged, or not there."""
    if not path.exists():
        return missing.get("missing", otherwise)
    try:
        text = path.read_text("utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        if not isinstance(found, type(otherwise)):
            raise ValueError(f"it holds a {type(found).__name__}")
    except DAMAGED as error:
        problems.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}.")
        return otherwise
    return found
