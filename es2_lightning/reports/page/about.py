"""What was run, in a few lines, and all of its config beneath."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from es2_lightning.config.job import SEVERAL
from es2_lightning.reports.page.run_files import RunFiles

ENDS = {
    "budget": "all its steps were taken",
    "kl_threshold": "the KL reached its threshold τ",
    "patience": "the separation no longer grew",
}
"""Why a stage ended."""
SHOWN_PACKAGES = ("es2-lightning", "torch", "transformers", "peft", "lightning")
MACHINE = ("python", "platform", "device", "threads", "commit")


@dataclass(frozen=True)
class Fact:
    """A line of what was run; `code` where it is to be read letter by letter."""

    name: str
    text: str
    code: bool = False


def facts(run: RunFiles) -> list[Fact]:
    """Model, data, layers, losses, versions: what is known of them."""
    return [fact for fact in _facts(run) if fact.text]


def stage_sentences(run: RunFiles) -> list[str]:
    """How each stage of the training went."""
    return [
        (
            f"Stage {end['stage'] + 1} separated layer "
            f"{', '.join(map(str, end.get('layers', [])))} in {end['steps']} steps"
            if _is_es2(run)
            else f"The training took {end['steps']} steps"
        )
        + " and ended when "
        f"{ENDS.get(end['reason'], end['reason'])}"
        + (f" (KL {end['kl']:.2g})." if isinstance(end.get("kl"), float) else ".")
        for end in run.stages
        if {"stage", "steps", "reason"} <= end.keys()
    ]


def config_text(run: RunFiles) -> str:
    """The whole config as YAML; empty where it is lost."""
    if not run.config:
        return ""
    return yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)


def versions_text(run: RunFiles) -> str:
    """Every package and the machine, a line each."""
    lines = {**run.versions.get("packages", {}), **_machine(run.versions)}
    return "\n".join(f"{name} {value}" for name, value in lines.items())


def _facts(run: RunFiles) -> Iterator[Fact]:
    config = run.config
    model, loss = _part(config, "model"), _part(config, "loss")
    yield Fact("Model", str(model.get("name_or_path", "")), code=True)
    if run.command == "train":
        yield Fact("What was trained", _trained(model))
    yield Fact("Method", _choice(run, "method"))
    yield Fact("Data", _data(run))
    schedule = _part(config, "schedule")
    if not _is_es2(run):
        # It has a loss of its own, without a threshold, and reads nothing of ES2's.
        loss = {k: v for k, v in _part(config, "method").items() if k != "_target_"}
        schedule = {k: v for k, v in schedule.items() if k not in ("kl_threshold", "order")}
    yield Fact("Layers separated" if _is_es2(run) else "Target layers", _layers(run))
    yield Fact("Loss", ", ".join(f"{key} {value}" for key, value in loss.items()))
    yield Fact("Schedule", ", ".join(f"{k} {v}" for k, v in schedule.items() if v is not None))
    optimizer = _part(config, "optimizer")
    name = str(optimizer.get("_target_", "")).rpartition(".")[2]
    settings = [f"{k} {v}" for k, v in optimizer.items() if k != "_target_"]
    yield Fact("Optimizer", ", ".join(filter(None, [name, *settings])))
    for group, words in (("attack", "Attacks"), ("judge", "Judges")):
        yield Fact(words, ", ".join(_part(config, group)))
    yield Fact("Prompts measured", _sizes(run))
    yield Fact("Seed", str(config.get("seed", "")))
    packages = run.versions.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in SHOWN_PACKAGES if name in packages]
    yield Fact("Versions", ", ".join(versions))
    machine = _machine(run.versions)
    yield Fact("Machine", ", ".join(f"{name} {value}" for name, value in machine.items()))
    if run.began:
        yield Fact("Begun", run.began.strftime("%Y-%m-%d %H:%M"))


def _is_es2(run: RunFiles) -> bool:
    return _choice(run, "method") in ("", "es2")


def _trained(model: Mapping[str, Any]) -> str:
    mode = str(model.get("mode", ""))
    lora = _part(model, "lora")
    if mode == "full" or not lora:
        return "all weights" if mode == "full" else mode
    return f"{mode}: rank {lora.get('r')}, α {lora.get('lora_alpha')}, {lora.get('target_modules')}"


def _data(run: RunFiles) -> str:
    data = _part(run.config, "data")
    parts = [_choice(run, "data")]
    if "harmless_per_batch" in data:
        parts.append(
            f"{data['harmless_per_batch']} harmless and {data.get('harmful_per_batch')} harmful "
            "prompts in a batch"
        )
    for kind, splits in (run.findings.sizes if run.findings else {}).items():
        parts.append(f"{kind}: " + ", ".join(f"{size} {split}" for split, size in splits.items()))
    return "; ".join(filter(None, parts))


def _layers(run: RunFiles) -> str:
    if not run.layers:
        return ""
    depth = f" of {run.depth}" if run.depth else ""
    choice = _choice(run, "layers")
    return f"{', '.join(map(str, run.layers))}{depth}" + (f" ({choice})" if choice else "")


def _sizes(run: RunFiles) -> str:
    direct = run.comparison.base.direct if run.comparison else {}
    sizes = [f"{len(made.prompts)} {kind.replace('_', ' ')}" for kind, made in direct.items()]
    return ", ".join(sizes)


def _machine(versions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: versions[name] for name in MACHINE if versions.get(name) is not None}


def _choice(run: RunFiles, group: str) -> str:
    choice = run.choices.get(group)
    if choice is None or group in SEVERAL:
        return ""
    return str(choice)


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def differing(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    """What the runs' configs differ in: by key, the value of each run; paths of runs left out."""
    flat = [dict(_leaves(run.config)) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    return {
        key: [str(one.get(key, "–")) for one in flat]
        for key in keys
        if len({str(one.get(key)) for one in flat}) > 1 and not _is_place(key)
    }


def _is_place(key: str) -> bool:
    return key.rpartition(".")[2] in ("dirpath", "folder", "ckpt_path", "run")


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
