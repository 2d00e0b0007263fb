"""Algorithm 1's stages, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from es2_lightning.errors import UserError
from es2_lightning.training.schedule import StageEnd, StageSchedule, make_stages
from es2_lightning.training.settings import ScheduleSettings


def schedule(**values: Any) -> StageSchedule:
    settings = ScheduleSettings(**{"max_steps": 3, **values})
    return StageSchedule(make_stages(settings, [2, 6]), settings, steps_per_epoch=2)


def step(run: StageSchedule, *kl: float, loss: float = 0.0) -> StageEnd | None:
    for value in kl:
        run.add_batch(kl=value, loss=loss)
    return run.end_step()


def test_threshold_drops_the_step_and_budget_ends_the_stage() -> None:
    run = schedule(kl_threshold=[0.1, 0.2])
    assert step(run, 0.05) is None
    end = step(run, 0.15)
    assert end is not None
    assert (end.stage, end.layers, end.reason, end.steps) == (0, (2,), "kl_threshold", 1)
    assert end.kl == 0.15
    ends = [step(run, 0.15) for _ in range(3)]
    assert ends[:2] == [None, None] and ends[2] is not None and ends[2].reason == "budget"
    assert run.finished
    run.add_batch(kl=0.0, loss=0.0)
    assert run.drops_step(), "what comes after the last stage is not applied"
    assert run.end_step() is None and len(run.ends) == 2


def test_the_mean_of_the_whole_step_is_compared() -> None:
    run = schedule(kl_threshold=0.1)
    assert step(run, 0.01, 0.18) is None
    for value in (0.01, 0.2):
        run.add_batch(kl=value, loss=0.0)
    assert run.drops_step()


def test_nan_is_dropped_and_equality_is_not() -> None:
    run = schedule(kl_threshold=0.1)
    run.add_batch(kl=0.1, loss=0.0)
    assert not run.drops_step()
    run.end_step()
    end = step(run, float("nan"))
    assert end is not None and end.reason == "kl_threshold"


def test_each_stage_has_its_own_budget() -> None:
    run = schedule(max_steps=[2, 5], max_epochs=None)
    ends = [step(run, 0.0) for _ in range(7)]
    assert [i for i, end in enumerate(ends) if end] == [1, 6]
    epochs = schedule(max_steps=None, max_epochs=[1.5, 0.5])
    assert [s.budget(2) for s in epochs.stages] == [3, 1]
    both = schedule(max_steps=2, max_epochs=[0.5, 7])
    assert [s.budget(2) for s in both.stages] == [1, 2], "the smaller budget counts"


def test_convergence_and_state() -> None:
    run = schedule(max_steps=100, patience=1)
    step(run, 0.0, loss=1.0)
    other = schedule(max_steps=100, patience=1)
    other.load_state_dict(json.loads(json.dumps(run.state_dict())))
    for one in (run, other):
        ends = [step(one, 0.0, loss=1.0) for _ in range(3)]
        assert ends[:2] == [None, None] and ends[2] is not None
        assert ends[2].reason == "converged"
    improving = schedule(max_steps=100, patience=1)
    assert all(step(improving, 0.0, loss=-float(i)) is None for i in range(20))


def test_joint_is_one_stage_over_all_layers() -> None:
    settings = ScheduleSettings(order="joint", max_steps=3)
    assert [stage.layers for stage in make_stages(settings, [2, 6])] == [(2, 6)]


def test_a_longer_budget_goes_on_from_a_saved_state_and_other_thresholds_are_refused() -> None:
    run = schedule()
    step(run, 0.0)
    longer = schedule(max_steps=9)
    longer.load_state_dict(run.state_dict())
    assert longer.steps == 1
    with pytest.raises(UserError, match=r"0\.1.*this run has.*0\.3"):
        schedule(kl_threshold=0.3).load_state_dict(run.state_dict())


@pytest.mark.parametrize("key", ["kl_threshold", "max_steps", "max_epochs"])
def test_one_value_for_each_stage(key: str) -> None:
    with pytest.raises(UserError, match=rf"schedule\.{key}=\[1, 2, 3\].*2 stages"):
        schedule(**{key: [1, 2, 3]})


def test_a_budget_is_needed() -> None:
    with pytest.raises(UserError, match=r"schedule\.max_steps"):
        schedule(max_steps=None)
