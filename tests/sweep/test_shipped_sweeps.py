"""Every shipped sweep: its jobs compose, pass all checks, and are those that it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

import es2_lightning.train  # noqa: F401  (registers the schema)
from es2_lightning.config.location import conf_dir
from es2_lightning.config.precheck import Precheck
from es2_lightning.config.run_folder import register_resolvers
from es2_lightning.config.train_check import check_train
from es2_lightning.config.train_schema import TrainConfig

SHIPPED = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))


def jobs(*words: str) -> list[TrainConfig]:
    found: list[TrainConfig] = []

    def check(config: TrainConfig) -> None:
        check_train(config)
        found.append(config)

    register_resolvers(reserve=False)
    precheck = Precheck(conf_dir(), "train", TrainConfig, check, records_jobs=True)
    precheck(get_args_parser().parse_args(["-m", *words]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_all_jobs_pass_the_checks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = jobs(f"sweep={name}")
    settings = {
        (
            c.seed,
            c.layers.select,
            c.loss.kl_weight,
            c.loss.separation_weight,
            c.schedule.kl_threshold,
        )
        for c in found
    }
    assert len(settings) == len(found) > 2
    if name == "seeds":
        assert [config.seed for config in found] == [1, 2, 3]
        assert len(jobs("sweep=seeds", "loss.kl_weight=0.3,1")) == 6
    if name == "layers_grid":
        assert len({config.layers.select for config in found}) == 3
    if name == "optuna_pareto":
        assert found[0].objectives == ["scav_dsr", "capability_kept"]
        assert {config.loss.kl_weight for config in found} == {0.05, 2.0}
    assert not list(tmp_path.iterdir())
