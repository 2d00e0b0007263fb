"""A sweep whose jobs Optuna chooses, trial by trial, from what the earlier ones returned."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from es2_lightning.config.search_space import Dimension, of_override, read_search_space, words
from es2_lightning.errors import UserError, first_line

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)
STORAGE = "optuna.db"


@dataclass(frozen=True)
class StudySettings:
    """What `hydra_plugins.es2_optuna.sweeper.OptunaStudyConf` says."""

    search_space: Mapping[str, Any]
    n_trials: int
    n_jobs: int
    direction: Sequence[str]
    seed: int | None
    sampler: Mapping[str, Any]
    storage: str | None
    study_name: str


@dataclass
class StudySweep:
    """Asks Optuna for trials, has them run, and tells it what they returned.

    A trial's number is its job's, and so its folder's name. A trial that was under way when the
    sweep was interrupted runs again, in its folder, where it goes on from its checkpoint.

    Attributes:
        config: The sweep's, with Hydra's node.
        launcher: Runs jobs.
    """

    settings: StudySettings
    config: DictConfig
    launcher: Launcher

    def run(self, arguments: Sequence[str]) -> list[optuna.trial.FrozenTrial]:
        """Run trials until as many have finished as were asked for.

        A trial that fails is told to Optuna as failed; the study goes on.

        Raises:
            UserError: Optuna is not installed, the study there has other objectives, or nothing
                is searched.
            RuntimeError: Every trial of this start failed.
        """
        fixed, space = self._space(arguments)
        folder = Path(self.config.hydra.sweep.dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = self._study(folder)
        distributions = {dimension.key: _distribution(dimension) for dimension in space}

        states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
        missing = self.settings.n_trials - states.count("COMPLETE")
        if len(states) > 0:
            log.info("The study has %d finished trials: %d more", states.count("COMPLETE"), missing)
        returned: list[JobReturn] = []
        interrupted = [t for t in study.get_trials() if t.state.name == "RUNNING"]
        for trial in interrupted[: max(missing, 0)]:
            returned += self._launch(study, fixed, [(trial.number, trial.params)])
        missing -= min(len(interrupted), max(missing, 0))
        while missing > 0:
            asked = [study.ask(distributions) for _ in range(min(missing, self.settings.n_jobs))]
            returned += self._launch(
                study, fixed, [(trial.number, trial.params) for trial in asked]
            )
            missing -= len(asked)
        for best in study.best_trials if _any_complete(study) else []:
            log.info(
                "Best: job %d, %s: %s",
                best.number,
                " ".join(words(best.params)),
                ", ".join(f"{value:.4g}" for value in best.values),
            )
        _raise_where_all_failed(returned)
        return list(study.best_trials) if _any_complete(study) else []

    def _space(self, arguments: Sequence[str]) -> tuple[list[str], list[Dimension]]:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
        swept = [of_override(o) for o in overrides if o.is_sweep_override()]
        fixed = [o for o in overrides if not o.is_sweep_override()]
        keys = {dimension.key for dimension in swept} | {o.get_key_element() for o in fixed}
        # What was typed wins over what the config searches.
        space = [d for d in read_search_space(self.settings.search_space) if d.key not in keys]
        if not (space or swept):
            raise UserError(
                "hydra/sweeper=optuna_study: nothing is searched. Accepted: "
                "hydra.sweeper.search_space in a config, as in conf/sweep/optuna_pareto.yaml, or "
                "a sweep on the command line, such as 'loss.kl_weight=interval(0.1,1)'."
            )
        return [o.input_line or "" for o in fixed], [*space, *swept]

    def _study(self, folder: Path) -> optuna.Study:
        try:
            import optuna
        except ImportError as error:
            raise UserError(
                "hydra/sweeper=optuna_study needs Optuna. Accepted: "
                "pip install 'es2-lightning[optuna]'."
            ) from error
        if unknown := [d for d in self.settings.direction if d not in ("maximize", "minimize")]:
            raise UserError(
                f"hydra.sweeper.direction: {unknown[0]} is none. Accepted: maximize or minimize."
            )
        # Its own lines would tell each trial once more.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=self.settings.study_name,
            storage=self.settings.storage or f"sqlite:///{folder / STORAGE}",
            directions=[optuna.study.StudyDirection[d.upper()] for d in self.settings.direction],
            load_if_exists=True,
        )
        here, there = [d.upper() for d in self.settings.direction], study.directions
        if here != [direction.name for direction in there]:
            raise UserError(
                f"hydra.sweeper.direction={list(self.settings.direction)}: the study that goes on "
                f"has {[direction.name.lower() for direction in there]}. Accepted: these, or a "
                "new hydra.sweep.dir."
            )
        sampler = dict(self.settings.sampler)
        seed = self.settings.seed
        if seed is not None:
            # A study that goes on would otherwise draw the same first trials once more.
            sampler["seed"] = seed + len(study.get_trials(deepcopy=False))
        target = sampler.pop("_target_")
        study.sampler = get_class(target)(**sampler)
        return study

    def _launch(
        self,
        study: optuna.Study,
        fixed: Sequence[str],
        trials: Sequence[tuple[int, Mapping[str, Any]]],
    ) -> Sequence[JobReturn]:
        """Runs trials whose numbers follow each other."""
        from optuna.trial import TrialState

        jobs = [[*fixed, *words(params)] for _, params in trials]
        returned = self.launcher.launch(jobs, initial_job_idx=trials[0][0])
        for (number, _), of_job in zip(trials, returned, strict=True):
            values: list[float] = []
            if of_job.status == JobStatus.COMPLETED:
                values = _objectives(of_job.return_value)
            if len(values) != len(study.directions):
                values = []
            if not values or any(map(math.isnan, values)):
                study.tell(number, state=TrialState.FAIL)
            if values and any(map(math.isnan, values)):
                log.warning("Job %d returned %s: it counts as failed", number, values)
            elif values:
                study.tell(number, values)
        _require_objectives(returned, len(study.directions))
        return returned


def _objectives(returned: Any) -> list[float]:
    return [returned] if isinstance(returned, (int, float)) else list(returned or ())


def _require_objectives(returned: Sequence[JobReturn], wanted: int) -> None:
    """Jobs that are through must have told as many objectives as there are directions.

    Raises:
        UserError: One has not, and so none will.
    """
    for of_job in returned:
        if of_job.status != JobStatus.COMPLETED:
            continue
        found = len(_objectives(of_job.return_value))
        if not found:
            raise UserError(
                "The jobs return no objectives, since nothing is measured. Accepted: another "
                "choice of evaluate than none."
            )
        if found != wanted:
            raise UserError(
                f"The jobs return {found} objectives, but hydra.sweeper.direction has {wanted}. "
                "Accepted: a direction for each of objectives=[…]."
            )


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        step = 1 if dimension.step is None else int(dimension.step)
        return IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log, step=step
        )
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _any_complete(study: optuna.Study) -> bool:
    return any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))


def _raise_where_all_failed(returned: Sequence[JobReturn]) -> None:
    """Failures are told by their jobs; a sweep of nothing else is one itself."""
    failed = [r for r in returned if r.status == JobStatus.FAILED]
    if returned and len(failed) == len(returned):
        raise RuntimeError(f"All {len(failed)} trials failed, such as: {_error(failed[0])}")


def _error(failed: JobReturn) -> str:
    try:
        return str(failed.return_value)
    except BaseException as error:
        return first_line(error)
