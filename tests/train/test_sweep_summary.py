"""What a sweep saved is told from its first job's own times."""

from __future__ import annotations

from pathlib import Path

import pytest

from es2_lightning.sweep import JobSeconds, Sweep


def test_the_ratio_is_what_runs_of_their_own_would_take() -> None:
    first = JobSeconds(loading=10, finding=5, cache=20, base=25, total=100)
    later = JobSeconds(base=1, total=41)
    told = Sweep(Path(), jobs=[first, later, later]).summary(start=8)
    # Each of three takes 8 s to start and 100 s: 324 s against 8 + 182 s.
    assert "3 jobs took 3.2 min, 1.1 min each" in told
    assert f"would have taken {324 / 190:.2f} times as long" in told
    assert "imports and checks (8 s), loading the base model (10 s)" in told


def test_a_job_that_had_to_do_it_itself_saved_nothing() -> None:
    job = JobSeconds(loading=10, total=30)
    assert "1.00 times" in Sweep(Path(), jobs=[job, job]).summary(start=0)
    assert "times as long" not in Sweep(Path(), jobs=[job]).summary(start=1)


def test_found_once_and_times_add_up() -> None:
    sweep, calls = Sweep(Path()), []

    def find() -> int:
        calls.append(1)
        return len(calls)

    assert [sweep.once("a", find), sweep.once("a", find), sweep.once("b", find)] == [1, 1, 2]
    seconds = JobSeconds(cache=1.0)
    with seconds.timed("cache"):
        pass
    with pytest.raises(ValueError), seconds.timed("base"):
        raise ValueError
    assert 1 < seconds.cache < 2 and seconds.base > 0
