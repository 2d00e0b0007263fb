"""A sweep of real, tiny training runs: interrupted, told of, gone on with."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ..train.conftest import SMALL, TINY_EVALUATION, Train, train  # noqa: F401
from ..train.test_sweep import adapters_equal

WORDS = (*SMALL, *TINY_EVALUATION, "callbacks.checkpoint.every_n_train_steps=1")


def lines(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_to_the_same_end(
    train: Train,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from es2_lightning.training.es2_module import ES2Module

    step = ES2Module.training_step

    def interrupted(self: ES2Module, *args: Any) -> Any:
        if self.trainer.global_step == 3 and self.loss_settings.kl_weight == 1:
            raise KeyboardInterrupt
        return step(self, *args)

    jobs = ("-m", *WORDS, "loss.kl_weight=0.1,1.0")
    with monkeypatch.context() as patched:
        patched.setattr(ES2Module, "training_step", interrupted)
        train(*jobs, status=130)
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    first, second = lines(sweep)
    assert (first["status"], second["status"]) == ("finished", "interrupted")
    assert first["capability_kept"] and first["scav_dsr"] and first["steps"] == "2+2"
    assert (sweep / "sweep.png").exists()
    before = (sweep / "0" / "job.json").stat().st_mtime_ns
    capsys.readouterr()
    train(*jobs, "ckpt_path=last")
    shown = capsys.readouterr().out
    assert "Job 0 is finished already, and not run again" in shown
    assert "2 jobs: 2 finished (1 of them earlier, and not run again)." in shown
    assert (sweep / "0" / "job.json").stat().st_mtime_ns == before
    first, second = lines(sweep)
    assert second["status"] == "finished" and second["steps"] == "2+2" and second["kl"]
    alone = train(*WORDS, "loss.kl_weight=1.0", "hydra.run.dir=outputs/alone")
    assert adapters_equal(sweep / "1", alone)


@pytest.mark.slow
def test_optuna_chooses_training_runs(
    train: Train,  # noqa: F811
    tmp_path: Path,
) -> None:
    pytest.importorskip("optuna")
    train("sweep=optuna_pareto", *WORDS, "hydra.sweeper.n_trials=2")
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    weights = {line["kl_weight"] for line in lines(sweep)}
    assert len(weights) == 2 and all(line["status"] == "finished" for line in lines(sweep))


def test_nothing_measured_is_no_study(
    train: Train,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("optuna")
    train("sweep=optuna_pareto", *SMALL, "evaluate=none", status=1)
    assert "The jobs return no objectives, since nothing is measured" in capsys.readouterr().err
