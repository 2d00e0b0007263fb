"""Composes and checks what a command line asks for, before anything runs.

Of a sweep by Hydra's basic sweeper, every job is composed and checked: a mistake in the last job
shows before the first one has trained for a night.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from es2_lightning.config import job as running
from es2_lightning.config.checking import check_config, explain, to_object
from es2_lightning.config.config_hash import config_hash
from es2_lightning.config.groups import ChoiceCheck, Groups
from es2_lightning.config.job_record import refuse_other_job
from es2_lightning.config.loading import config_loader
from es2_lightning.config.overrides import check_key, parse
from es2_lightning.config.ranks import this_rank
from es2_lightning.config.search_space import corners, of_override
from es2_lightning.config.search_space import words as words_of
from es2_lightning.config.secrets import refuse_environment
from es2_lightning.config.wording import listed
from es2_lightning.errors import UserError

_BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"


@dataclass(frozen=True)
class Precheck:
    """What a command accepts.

    Attributes:
        conf: the config folder.
        config_name: the primary config in it.
        schema: the dataclass of the whole config, or None where it is untyped.
        check: called with the typed config; raises UserError.
        own_values: see `ChoiceCheck`.
        check_built: as `check`, for what only libraries can tell that take seconds to import:
            called last, of a sweep when all jobs have passed all else.
        records_jobs: whether a job's folder may hold what it left earlier, and nothing else.
    """

    conf: Path
    config_name: str
    schema: type | None = None
    check: Callable[[Any], None] | None = None
    own_values: Mapping[str, str] = field(default_factory=dict)
    check_built: Callable[[Any], None] | None = None
    records_jobs: bool = False

    def __call__(self, arguments: argparse.Namespace) -> None:
        """Checks a command line, as parsed by Hydra's own parser.

        Raises:
            UserError: on the first mistake.
        """
        with config_loader(self.conf, arguments, task_name=self.config_name) as loader:
            self._check_words(loader, arguments)

    def typed(self, config: DictConfig) -> Any:
        """Checks a composed config, without Hydra's node, and gives what the function receives.

        Raises:
            UserError: on the first mistake.
        """
        received = self.typed_quickly(config)
        if self.check_built is not None:
            self.check_built(received)
        return received

    def typed_quickly(self, config: DictConfig) -> Any:
        """As `typed`, but for `check_built`."""
        check_config(config)
        received = config if self.schema is None else to_object(config)
        if self.check is not None:
            self.check(received)
        return received

    def _check_words(self, loader: ConfigLoaderImpl, arguments: argparse.Namespace) -> None:
        name = arguments.config_name or self.config_name
        words = list(arguments.overrides)
        groups = self._groups(loader, name, words)
        job = _JobCheck(self, loader, name, groups, runs=not _only_looks(arguments))
        parsed = parse(words, loader)
        mode = GlobalHydra.instance().hydra.get_mode(name, words)  # type: ignore[union-attr]
        if not (arguments.multirun or mode == RunMode.MULTIRUN):
            _refuse_several_values(parsed)
            jobs: list[tuple[int | None, list[str]]] = [(None, words)]
        else:
            _refuse_ranks()
            jobs = list(enumerate(self._jobs(job, parsed)))
        passed = []
        for number, job_words in jobs:
            with _naming_job(number), _timing(number):
                passed.append((number, *job(job_words, number=number)))
        if self.check_built is None or not job.runs:
            return
        for number, config, received in passed:
            HydraConfig.instance().set_config(config)
            with _naming_job(number), _timing(number):
                self.check_built(received)

    def _groups(self, loader: ConfigLoaderImpl, name: str, words: Sequence[str]) -> Groups:
        parse(words)
        try:
            return Groups(loader, name, words)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(explain(error)) from error

    def _jobs(self, job: _JobCheck, parsed: Sequence[Override]) -> list[list[str]]:
        """The words of each job of a sweep."""
        hydra_words = [o.input_line or "" for o in parsed if o.is_hydra_override()]
        of_tasks = [o for o in parsed if not o.is_hydra_override()]
        master = job.master(parsed)
        if master.hydra.sweeper._target_ != _BASIC_SWEEPER:
            # What another sweeper will choose is its own affair; some jobs stand for all.
            job.numbers_are_known = False
            words = [next(_values(o)) for o in of_tasks]
            return [hydra_words + words + point for point in corners(master.hydra.sweeper)]
        params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        swept = parse(params, job.loader) + of_tasks
        try:
            (jobs,) = BasicSweeper.split_arguments(swept, None)
        except HydraException as error:
            raise UserError(explain(error)) from error
        return [hydra_words + words for words in jobs]


@dataclass
class _JobCheck:
    """Composes and checks the config of one job."""

    what: Precheck
    loader: ConfigLoaderImpl
    name: str
    groups: Groups
    runs: bool
    numbers_are_known: bool = True
    bases: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)

    def __call__(self, words: Sequence[str], *, number: int | None) -> tuple[DictConfig, Any]:
        """The composed config, and what the function would receive; None where it only looks."""
        parsed = parse(words, self.loader)
        for override in parsed:
            self.check_word(override, parsed=parsed)
        config = self.compose(words, RunMode.RUN, base=self._base(parsed))
        refuse_environment(config.hydra.job.env_set)
        self._provide_runtime(config, number)
        hydra_free = _without_hydra(config)
        if self.what.schema is not None and OmegaConf.get_type(hydra_free) is not self.what.schema:
            raise UserError(
                f"The config {self.name} is untyped, so mistakes in it would pass unseen. "
                f"Accepted: a defaults list that begins with {self.what.config_name}_schema."
            )
        if not self.runs:
            return config, None
        received = self.what.typed_quickly(hydra_free)
        if self.what.records_jobs and number is not None and self.numbers_are_known:
            folder = Path(config.hydra.runtime.output_dir)
            refuse_other_job(config_hash(hydra_free, folder=folder), folder)
        return config, received

    def check_word(self, override: Override, *, parsed: Sequence[Override]) -> None:
        """Checks the group and choice, or the key, of one override."""
        if self.groups.chosen_by(override):
            self._check_choice(override)
            return
        check_key(self._base(parsed), override, self._taken_groups())

    def _check_choice(self, override: Override) -> None:
        group = override.key_or_group
        taken = self._taken_groups()
        if not (override.is_add() or group in taken):
            kin = [name for name in taken if "/" not in name]
            raise UserError(
                f"{override.input_line}: this command takes no choice of {group}. "
                f"Groups: {listed(kin)}."
            )
        selected = self._base([]).hydra.runtime.choices if override.is_add() else {}
        ChoiceCheck(self.groups, self.what.own_values)(override, selected=selected)

    def _taken_groups(self) -> list[str]:
        """The groups of which this command takes a choice, with Hydra's own."""
        schema = self.what.schema
        if schema is None:
            return self.groups.names
        keys = {f.name for f in fields(schema)}
        declared = self._base([]).hydra.runtime.choices
        return [
            name
            for name in self.groups.names
            if name.startswith("hydra/")
            # Hydra does not list groups of which several choices are selected.
            or name in keys
            or (name in declared and self.groups.is_global(name))
        ]

    def master(self, parsed: Sequence[Override]) -> DictConfig:
        """The config from which Hydra starts a sweep."""
        kept = [o for o in parsed if o.is_hydra_override() or self._stays_in_base(o)]
        for override in kept:
            if not override.is_sweep_override():
                self.check_word(override, parsed=kept)
        return self.compose([o.input_line or "" for o in kept], RunMode.MULTIRUN)

    def compose(
        self, words: Sequence[str], mode: RunMode, *, base: DictConfig | None = None
    ) -> DictConfig:
        try:
            return self.loader.load_configuration(self.name, list(words), mode)
        except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
            raise UserError(explain(error, base)) from error

    def _base(self, parsed: Sequence[Override]) -> DictConfig:
        """The config without the overrides that set keys, for telling which keys there are."""
        kept = tuple(o.input_line or "" for o in parsed if self._stays_in_base(o))
        if kept not in self.bases:
            for override in parse(kept):
                if self.groups.chosen_by(override):
                    self._check_choice(override)
            self.bases[kept] = self.compose(kept, RunMode.MULTIRUN)
        return self.bases[kept]

    def _stays_in_base(self, override: Override) -> bool:
        if override.is_sweep_override():
            return False
        return self.groups.chosen_by(override) or override.key_or_group == "hydra.searchpath"

    def _provide_runtime(self, config: DictConfig, number: int | None) -> None:
        """Gives Hydra's node what a running job has, for interpolations that ask for it."""
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.num = config.hydra.job.id = number or 0
            try:
                if number is None:
                    folder = Path(config.hydra.run.dir)
                else:
                    folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
            except OmegaConfBaseException as error:
                raise UserError(explain(error)) from error
            config.hydra.runtime.output_dir = str(folder.absolute())
        HydraConfig.instance().set_config(config)


@contextmanager
def _naming_job(number: int | None) -> Iterator[None]:
    """Says which job of a sweep it was; a mistake in the first is most likely one in all."""
    try:
        yield
    except UserError as error:
        if not number:
            raise
        raise UserError(f"Job {number} of the sweep: {error}") from error


@contextmanager
def _timing(number: int | None) -> Iterator[None]:
    """Counts the first job's time: imports are part of it, and of that of any run of its own."""
    began = time.monotonic()
    try:
        yield
    finally:
        if not number:
            running.count_check(time.monotonic() - began)


def _values(override: Override) -> Iterator[str]:
    """The override as it reads in each job; of a continuous sweep, at one end."""
    if not override.is_sweep_override():
        yield override.input_line or ""
    elif override.is_discrete_sweep():
        for value in override.sweep_string_iterator():
            yield f"{override.get_key_element()}={value}"
    else:
        yield from words_of({override.get_key_element(): of_override(override).low})


def _without_hydra(config: DictConfig) -> DictConfig:
    copy = config.copy()
    with read_write(copy), open_dict(copy):
        del copy["hydra"]
    return copy


def _only_looks(arguments: argparse.Namespace) -> bool:
    return bool(arguments.help or arguments.cfg or arguments.info)


def _refuse_ranks() -> None:
    rank = this_rank()
    if rank is not None and rank.world > 1:
        raise UserError(
            f"This process is one of {rank.world} that torchrun or srun started, and each would "
            "run the whole sweep. Accepted: -m without them, which starts the processes of each "
            "job; or a run without -m."
        )


def _refuse_several_values(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line} holds several values. Accepted: one value; with -m, a "
                "sweep over them; in brackets, as in key=[1,2], a list."
            )
