"""The same sweep once more: what is finished is not run again, what is not goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from es2_lightning.config import job_record, same_sweep

from .conftest import Toy


def the_sweep() -> Path:
    (sweep,) = Path("outputs/sweeps").iterdir()
    return sweep


def statuses(sweep: Path) -> list[str]:
    return [record.status for record in job_record.records(sweep).values()]


def test_a_failed_job_goes_on_and_finished_ones_are_not_run_again(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.txt").write_text("2")
    assert toy("-m", "x=1,2,3", status=1) == ["0 1 None", "1 2 None", "2 3 None"]
    sweep = the_sweep()
    assert statuses(sweep) == ["finished", "failed", "finished"]
    failed = job_record.read(sweep / "1")
    assert failed is not None and failed.error == "x=2 is bad" and failed.words == ("x=2",)
    assert (sweep / "told.txt").read_text().split() == ["0", "1", "2"]
    assert Path("ended.txt").read_text() == str(sweep.absolute())
    Path("bad.txt").unlink()
    capsys.readouterr()
    # It had a checkpoint.
    assert toy("-m", "x=1,2,3", "ckpt_path=last") == ["1 2 last"]
    assert statuses(sweep) == ["finished"] * 3
    assert toy("-m", "x=1,2,3", f"hydra.sweep.dir={sweep}") == []
    shown = capsys.readouterr().out
    assert shown.count("is finished already, and not run again") == 5


def test_the_same_words_start_the_same_sweep(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.txt").write_text("2")
    assert len(toy("-m", "x=1,2,3", status=1)) == 3
    Path("bad.txt").unlink()
    capsys.readouterr()
    assert toy("-m", "x=1,2,3", "hydra/launcher=basic") == ["1 2 last"]
    assert f"The sweep in {the_sweep().absolute()} goes on" in capsys.readouterr().out
    assert toy("-m", "x=1,2,3") == []
    # Other words, another folder, another version: another sweep.
    assert len(toy("-m", "x=1,2")) == 2
    assert len(toy("-m", "x=1,2", "hydra.sweep.dir=mine")) == 2
    monkeypatch.setattr(same_sweep, "_code_digest", lambda: "another")
    assert len(toy("-m", "x=1,2")) == 2
    assert len(list(Path("outputs/sweeps").iterdir())) == 3


def test_an_interrupted_job_runs_again(toy: Toy) -> None:
    assert toy("-m", "x=1,2", "kind=interrupted", status=130) == ["0 1 None"]
    assert statuses(the_sweep()) == ["interrupted"]
    Path("calm.txt").touch()
    assert toy("-m", "x=1,2", "kind=interrupted", "ckpt_path=last") == ["0 1 None", "1 2 None"]
    assert statuses(the_sweep()) == ["finished"] * 2


def test_a_killed_job_is_told_as_interrupted(toy: Toy) -> None:
    toy("-m", "x=1,2")
    path = the_sweep() / "0" / job_record.FILE
    stored = json.loads(path.read_text())
    # No process has this number.
    path.write_text(json.dumps({**stored, "status": "running", "pid": 2**22 + 1, "seconds": None}))
    assert statuses(the_sweep()) == ["interrupted", "finished"]
    assert toy("-m", "x=1,2", "ckpt_path=last") == ["0 1 None"]
    stored["status"] = "running"
    path.write_text(json.dumps(stored))
    job_record.tell_killed(path.parent, "exit status -9")
    killed = job_record.read(path.parent)
    assert killed is not None and (killed.status, killed.error) == ("failed", "exit status -9")


@pytest.mark.parametrize("words", [("x=3,1,2",), ("x=1,2", "y=1"), ("seed=1,2",)])
def test_other_jobs_are_refused_before_any_runs(
    toy: Toy, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    toy("-m", "x=1,2")
    assert toy("-m", *words, "ckpt_path=last", status=2) == []
    told = capsys.readouterr().err
    assert "holds a job with another config (x=1)" in told and "Accepted: the words of" in told


def test_new_values_at_the_end_run_alone(toy: Toy) -> None:
    toy("-m", "x=1,2", "y=5,6")
    assert toy("-m", "x=1,2,3", "y=5,6", "ckpt_path=last") == ["4 3 None", "5 3 None"]


def test_a_folder_with_another_run_is_refused(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/0").mkdir(parents=True)
    Path("mine/0/config.yaml").touch()
    assert toy("-m", "x=1,2", "hydra.sweep.dir=mine", status=2) == []
    assert "holds a run that is no job of a sweep" in capsys.readouterr().err


def test_last_without_a_sweep_is_a_mistake(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy("-m", "x=1,2", "ckpt_path=last", status=2) == []
    assert "there is no sweep to go on with" in capsys.readouterr().err


def test_a_moved_sweep_goes_on(toy: Toy) -> None:
    toy("-m", "x=1,2")
    the_sweep().rename("moved")
    assert toy("-m", "x=1,2,3", "hydra.sweep.dir=moved") == ["2 3 None"]


def test_settings_are_alike_whatever_the_seed(toy: Toy) -> None:
    toy("-m", "x=1,2", "seed=1,2")
    records = list(job_record.records(the_sweep()).values())
    assert len({record.hash for record in records}) == 4
    settings = [record.settings_hash for record in records]
    assert settings[0] == settings[1] != settings[2] == settings[3]


def test_a_single_run_leaves_no_record(toy: Toy) -> None:
    assert len(toy("x=1")) == 1
    assert not list(Path("outputs").rglob(job_record.FILE))


def test_only_the_first_rank_records(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert len(toy("-m", "x=1,2")) == 2
    assert not list(Path("outputs").rglob(job_record.FILE))
