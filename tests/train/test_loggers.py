"""What a run tells its loggers: read back from their own files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from es2_lightning.logged_keys import ARTIFACTS, KEYS, PICTURES, TABLES, described

from ..commands import run_command
from ..offline_wandb import OfflineRun, offline_runs
from .conftest import SMALL, TINY_EVALUATION

KEY, ENTITY = "0123456789" * 4, "an-entity-of-the-environment"
STEPS = 4


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's folder, with all loggers at once."""
    from es2_lightning.train import main

    root = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_ENTITY", ENTITY)
        monkeypatch.setenv("MY_TAG", "of-the-environment")
        run_command(
            main,
            *SMALL,
            *TINY_EVALUATION,
            "logger=[csv,wandb,tensorboard]",
            "logger.offline=true",
            "logger.wandb.tags=[mine,'${oc.env:MY_TAG}']",
            "logger.wandb.project=theirs",
            "progress=plain",
            "callbacks.display.every_n_steps=1",
            "hydra.run.dir=outputs/logged",
            monkeypatch=monkeypatch,
        )
        yield root / "outputs" / "logged"


@pytest.fixture(scope="module")
def run(logged: Path) -> OfflineRun:
    (found,) = offline_runs(logged)
    return found


def test_every_documented_key_is_logged_and_no_other(run: OfflineRun) -> None:
    logged = run.metrics.keys() - {"trainer/global_step"}
    assert [key for key in logged if described(key) is None] == []
    # Validation prompts have no refusals of the base, so they have no such KL.
    of_es2 = [key for key in KEYS if key.method in (None, "es2")]
    missing = [k.name for k in of_es2 if not any(re.fullmatch(k.pattern, key) for key in logged)]
    assert missing == ["validation/harmful_kl"]
    assert len(run.metrics["train/kl"]) == STEPS
    assert 0.5 <= run.metrics["validation/layer_3/probe_accuracy"][-1] <= 1


def test_wandb_is_told_of_the_run(run: OfflineRun, logged: Path) -> None:
    assert run.exit_code == 0
    assert (run.run.job_type, run.run.display_name) == ("train", "logged")
    assert {"mine", "of-the-environment", "model=organism", "method=es2"} <= set(run.run.tags)
    assert run.config["logger"]["wandb"]["tags"] == ["mine", "${oc.env:MY_TAG}"]
    assert run.config["loss"]["kl_weight"] and run.config["seed"] == 0
    tables = {key for key, kind in run.media.items() if kind == "table-file"}
    assert tables == TABLES.keys()
    pictures = {f"{PICTURES}/{path.stem}" for path in (logged / "pictures").glob("*.png")}
    assert pictures and pictures <= run.media.keys()
    ours = {a.type: a for a in run.artifacts if a.type != "run_table"}
    assert ours.keys() == ARTIFACTS.keys()
    assert {a.name for a in ours.values()} == {f"{kind}-{run.run.run_id}" for kind in ARTIFACTS}
    files = {kind: {e.path for e in a.manifest.contents} for kind, a in ours.items()}
    assert "adapter_model.safetensors" in files["adapter"]
    assert files["evaluation"] == {"results.json", "results.csv", "generations.jsonl"}
    wanted = {"report.html", "table.txt", "config.yaml", "metrics.csv", "training.png"}
    assert wanted <= files["report"]
    assert json.loads((logged / "wandb.json").read_text())["id"] == run.run.run_id


def test_no_key_and_no_variable_of_wandb_is_saved(logged: Path) -> None:
    for path in logged.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert KEY.encode() not in data, path
            # W&B's own files say where the run is to be synced to.
            assert "wandb" in path.parts or ENTITY.encode() not in data, path


def test_the_other_loggers_have_the_same(run: OfflineRun, logged: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with (logged / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name, value in row.items() if value} - {"step"}
    assert columns == run.metrics.keys() - {"trainer/global_step"}
    events = EventAccumulator(str(logged / "tensorboard" / "version_0"))
    events.Reload()
    assert set(events.Tags()["scalars"]) - {"hp_metric"} == columns
    assert "samples/0/text_summary" in events.Tags()["tensors"]


def test_samples_are_of_the_same_prompts_each_time(logged: Path) -> None:
    rows = [json.loads(line) for line in (logged / "samples.jsonl").read_text().splitlines()]
    steps = list(dict.fromkeys(row["step"] for row in rows))
    assert steps[0] == 0 and steps[-1] == STEPS
    asked = [[row["prompt"] for row in rows if row["step"] == step] for step in steps]
    assert all(prompts == asked[0] for prompts in asked) and len(asked[0]) == 8
    assert {row["kind"] for row in rows} == {"harmful", "harmless", "looks_harmful", "general"}
    assert all(row["output"] for row in rows)


def test_plain_progress_is_a_line_for_each_step(logged: Path) -> None:
    text = (logged / "train.log").read_text()
    found = re.findall(
        r"Stage (\d)/2, layer \d: step 1 of 2, loss \S+, KL \S+ \(τ 10\), "
        r"separation \S+ \(\S+ of the mean norm\), \S+ tokens/s, at most 0:\d\d left",
        text,
    )
    assert found == ["1", "2"]


def test_an_evaluation_names_the_adapter_that_it_measured(
    run: OfflineRun, logged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from es2_lightning.evaluate import main

    monkeypatch.chdir(tmp_path)
    run_command(
        main,
        f"run={logged}",
        *TINY_EVALUATION[:3],
        "attack=[direct]",
        "logger=[wandb]",
        "logger.offline=true",
        "hydra.run.dir=measured",
        monkeypatch=monkeypatch,
    )
    (measured,) = offline_runs(tmp_path / "measured")
    assert measured.exit_code == 0 and measured.run.job_type == "evaluate"
    assert measured.run.project == run.run.project == "theirs"
    assert measured.config["trained_by"] == run.run.run_id
    used, trained = measured.artifact("adapter"), run.artifact("adapter")
    assert used.use_after_commit and not trained.use_after_commit
    # The same name and content: to W&B the same version.
    assert (used.name, used.digest) == (trained.name, trained.digest)
    assert measured.artifact("evaluation").name == f"evaluation-{measured.run.run_id}"
    assert {"generations", "results"} <= measured.media.keys()
    assert "evaluation/tuned/direct/defended" in measured.metrics


def panels(specification: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel's title, or kind, with its config."""
    view = specification["spec"]["section"]["panelBankConfig"]
    for section in view["sections"]:
        for panel in section["panels"]:
            yield panel["config"].get("chartTitle", panel["viewType"]), panel["config"]


def keys_of(config: dict[str, Any]) -> set[str]:
    """All keys, patterns, config keys and tables that a panel names."""
    named = [*config.get("metrics", []), *config.get("mediaKeys", [])]
    named += [config[name] for name in ("xAxis", "yAxis", "metricRegex") if config.get(name)]
    named += [column["accessor"] for column in config.get("columns", [])]
    if "panel2Config" in config:
        named.append(config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"])
    return {name.removeprefix("summary:") for name in named}


def test_every_panel_of_the_dashboard_shows_what_the_run_logs(
    run: OfflineRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from es2_lightning.dashboard import main

    monkeypatch.chdir(tmp_path)
    run_command(main, "project=mine", "dry_run=true", monkeypatch=monkeypatch)
    written = json.loads((tmp_path / "outputs" / "dashboards" / "mine.json").read_text())
    there = {**run.metrics, **run.media}
    shown = dict(panels(written["specification"]))
    for title, config in panels(written["specification"]):
        assert keys_of(config), title
        for key in keys_of(config):
            if key.startswith("config:"):
                node: Any = run.config
                for name in key.removeprefix("config:").replace(".value", "").split("."):
                    node = node[name]
            else:
                assert any(re.fullmatch(key, known) for known in there), (title, key)
    for wanted in (
        "KL against its threshold τ",
        "Distance between the groups, over the mean norm",
        "Defence rate by attack, tuned",
        "Pareto front: safety against capability",
    ):
        assert wanted in shown
    tables = [keys_of(c) for _, c in panels(written["specification"]) if "panel2Config" in c]
    assert {name for names in tables for name in names} >= TABLES.keys()
