"""Algorithm 1's stages."""

import pytest

from es2_lightning.errors import UserError
from es2_lightning.training.schedule import StageSchedule, make_stages
from es2_lightning.training.settings import ScheduleSettings


def schedule(**values):
    settings = ScheduleSettings(**{"max_steps": 3, **values})
    return StageSchedule(make_stages(settings, [2, 6]), settings, steps_per_epoch=2)


def test_threshold_drops_the_step_and_budget_ends_the_stage():
    run = schedule(kl_threshold=[0.1, 0.2])
    assert run.observe(kl=0.05, loss=0.0) is None
    end = run.observe(kl=0.15, loss=0.0)
    assert (end.reason, end.steps, end.layers) == ("kl_threshold", 1, (2,))
    assert not run.exceeds(0.15) and run.exceeds(float("nan"))
    reasons = [run.observe(kl=0.15, loss=0.0) for _ in range(3)]
    assert reasons[:2] == [None, None] and reasons[2].reason == "budget"
    assert run.finished


def test_convergence_and_state():
    run = schedule(max_steps=100, patience=1)
    run.observe(kl=0.0, loss=1.0)
    other = schedule(max_steps=100, patience=1)
    other.load_state_dict(run.state_dict())
    for one in (run, other):
        ends = [one.observe(kl=0.0, loss=1.0) for _ in range(3)]
        assert ends[:2] == [None, None] and ends[2].reason == "converged"


def test_one_threshold_for_each_stage():
    with pytest.raises(UserError, match="2 stages"):
        schedule(kl_threshold=[0.1, 0.2, 0.3])
