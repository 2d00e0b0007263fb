"""`hydra/sweeper=optuna_study`: Optuna chooses the jobs of a sweep.

Hydra's own plugin needs an Optuna before version 3, whose databases do not work with the SQLAlchemy
of today. Hydra imports this file at the start of every command, so it imports nothing that takes
time.
"""

# Not `from __future__ import annotations`: Hydra runs this file before it stands in sys.modules,
# where dataclasses would look its annotations up.
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaStudyConf:
    """In Optuna's own words.

    Attributes:
        search_space: Keys to what they range over, see `es2_lightning.config.search_space`. Sweeps
            on the command line join it.
        n_trials: Jobs that finish; a study that goes on has as many more as are missing.
        n_jobs: Jobs handed to the launcher at once, which runs them side by side if it can.
        direction: maximize or minimize, for each objective that a job returns.
        seed: Of the sampler; null: another one each time.
        sampler: An object of Optuna's by `_target_`, without its seed.
        storage: null: a file in the sweep's folder, so that the study goes on; or a database's URL.
        study_name: Its name there.
    """

    _target_: str = "hydra_plugins.es2_optuna.sweeper.OptunaStudySweeper"
    # The sampler is made where its seed is known.
    _recursive_: bool = False
    search_space: dict[str, Any] = field(default_factory=dict)
    n_trials: int = 20
    n_jobs: int = 1
    direction: list[str] = field(default_factory=lambda: ["maximize", "maximize"])
    seed: int | None = 0
    sampler: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "optuna.samplers.TPESampler"}
    )
    storage: str | None = None
    study_name: str = "sweep"


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna_study", node=OptunaStudyConf, provider="es2_lightning"
)


class OptunaStudySweeper(Sweeper):
    """Hands Hydra's launcher to an `es2_lightning.optuna_study.StudySweep`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from hydra.core.plugins import Plugins

        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the study; gives its best trials."""
        from es2_lightning.optuna_study import StudySettings, StudySweep

        return StudySweep(
            StudySettings(**self.settings), config=self.config, launcher=self.launcher
        ).run(arguments)
