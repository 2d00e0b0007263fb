"""A study by Optuna over toy jobs, with the mistakes that users make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from es2_lightning.config.search_space import (
    Dimension,
    corners,
    of_override,
    read_search_space,
    words,
)
from es2_lightning.errors import UserError

from .conftest import Toy
from .test_going_on import the_sweep

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="Optuna is not installed"
)
STUDY = ("-m", "hydra/sweeper=optuna_study", "x=interval(0.0,1.0)", "y=1,2,3")


def trials(sweep: Path) -> list[Any]:
    import optuna

    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{sweep / 'optuna.db'}").trials


@needs_optuna
def test_a_study_runs_its_trials_and_goes_on(toy: Toy) -> None:
    assert len(toy(*STUDY, "hydra.sweeper.n_trials=3")) == 3
    first = trials(the_sweep())
    assert [trial.state.name for trial in first] == ["COMPLETE"] * 3
    assert all(t.values == pytest.approx([t.params["x"], float(t.params["y"])]) for t in first)
    # A job's folder has its trial's number.
    ran = toy(*STUDY, "hydra.sweeper.n_trials=5", "ckpt_path=last")
    assert [line.split()[0] for line in ran] == ["3", "4"]
    assert toy(*STUDY, "hydra.sweeper.n_trials=5", "ckpt_path=last") == []
    xs = [trial.params["x"] for trial in trials(the_sweep())]
    assert len(set(xs)) == 5


@pytest.mark.slow
@needs_optuna
def test_the_seed_decides(toy: Toy) -> None:
    words = (*STUDY, "hydra.sweeper.n_trials=3")
    one = toy(*words, "hydra.sweep.dir=one")
    assert one == toy(*words, "hydra.sweep.dir=two")
    assert one != toy(*words, "hydra.sweep.dir=three", "hydra.sweeper.seed=1")


@pytest.mark.slow
@needs_optuna
def test_failed_trials_are_told_and_others_take_their_place(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.txt").write_text("7")
    # y < 0 returns NaN, x = 7 raises.
    words = ("-m", "hydra/sweeper=optuna_study", "x=7,1", "y=-1,1", "hydra.sweeper.n_trials=8")
    toy(*words, "hydra.sweeper.sampler._target_=optuna.samplers.RandomSampler", status=1)
    states = [trial.state.name for trial in trials(the_sweep())]
    good = [trial.params == {"x": "1", "y": "1"} for trial in trials(the_sweep())]
    assert [state == "COMPLETE" for state in states] == good
    assert {"COMPLETE", "FAIL"} == set(states)
    told = capsys.readouterr()
    assert "sweep's jobs failed" in told.err and "it counts as failed" in told.out
    toy(*words, "ckpt_path=last", status=1)
    assert len(trials(the_sweep())) == 8 + states.count("FAIL")


@needs_optuna
def test_all_trials_failing_is_a_failure(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("-m", "hydra/sweeper=optuna_study", "x=7,7.0", "hydra.sweeper.n_trials=2")
    Path("bad.txt").write_text("7")
    toy(*words, status=1)
    assert "2 of the sweep's jobs failed" in capsys.readouterr().err


@needs_optuna
def test_an_interrupted_trial_runs_again_in_its_folder(toy: Toy) -> None:
    words = (*STUDY, "kind=interrupted", "hydra.sweeper.n_trials=2")
    (first,) = toy(*words, status=130)
    assert [trial.state.name for trial in trials(the_sweep())] == ["RUNNING"]
    Path("calm.txt").touch()
    again, other = toy(*words, "ckpt_path=last")
    assert again == first and other.split()[0] == "1"
    assert [trial.state.name for trial in trials(the_sweep())] == ["COMPLETE"] * 2


@needs_optuna
@pytest.mark.parametrize(
    "extra, told",
    [
        (["hydra.sweeper.direction=[minimize]"], "return 2 objectives, but"),
        (["x=0.5", "y=1"], "nothing is searched"),
    ],
)
def test_mistakes(
    toy: Toy, extra: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {word.partition("=")[0] for word in extra}
    study = [word for word in STUDY if word.partition("=")[0] not in keys]
    toy(*study, "hydra.sweeper.n_trials=1", *extra, status=1)
    assert told in capsys.readouterr().err


@needs_optuna
def test_another_direction_is_refused_for_a_study_that_goes_on(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(*STUDY, "hydra.sweeper.n_trials=1")
    toy(*STUDY, "ckpt_path=last", "hydra.sweeper.direction=[minimize,maximize]", status=1)
    assert "the study that goes on has ['maximize', 'maximize']" in capsys.readouterr().err


def test_the_space_is_read_in_optunas_words() -> None:
    space = read_search_space(
        {
            "a.b": {"low": 0.1, "high": 2, "log": True},
            "n": {"type": "int", "low": 1, "high": 9, "step": 2},
            "group": {"choices": ["one", None, True]},
        }
    )
    assert space == [
        Dimension("a.b", low=0.1, high=2, log=True),
        Dimension("n", low=1, high=9, whole=True, step=2),
        Dimension("group", choices=("one", None, True)),
    ]
    point = {"a": None, "b": True, "c": 1e-7, "d": "x"}
    assert words(point) == ["a=null", "b=true", "c=1e-07", "d=x"]


@pytest.mark.parametrize(
    "typed, dimension",
    [
        ("x=interval(0.1,2)", Dimension("x", low=0.1, high=2)),
        ("x=int(interval(1,5))", Dimension("x", low=1, high=5, whole=True)),
        ("x=tag(log,interval(0.1,2))", Dimension("x", low=0.1, high=2, log=True)),
        ("x=range(1,4)", Dimension("x", choices=("1", "2", "3"))),
        ("x=a,b", Dimension("x", choices=("a", "b"))),
    ],
)
def test_sweeps_on_the_command_line(typed: str, dimension: Dimension) -> None:
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert of_override(override) == dimension


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"low": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}, {"choices": []},
        {"low": 1, "high": 2, "lgo": True}, {"type": "int", "low": 0.5, "high": 2},
        {"low": "a", "high": "b"}, {"type": "real", "low": 1, "high": 2}, [1, 2],
        {"low": 1, "high": 2, "step": 0.1, "log": True}, {"low": 1, "high": 2, "choices": [1]},
    ],
)  # fmt: skip
def test_a_wrong_range_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"search_space\.loss\.kl_weight=.*Accepted: {choices"):
        read_search_space({"loss.kl_weight": wrong})


def test_corners_show_each_end_once() -> None:
    space = {"a": {"low": 1.0, "high": 2.0}, "b": {"choices": ["x", "y", "z"]}}
    assert corners({"search_space": space}) == [
        ["a=1.0", "b=x"], ["a=2.0", "b=x"], ["a=1.0", "b=y"], ["a=1.0", "b=z"],
    ]  # fmt: skip
    assert corners({}) == [[]]
