"""How the jobs of a sweep are started: `hydra/launcher=es2`, `hydra.launcher.n_jobs=4`.

Hydra imports plugins for every Hydra command of an environment, so nothing heavy here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


@dataclass
class ES2LauncherConf:
    """The launcher's settings.

    Attributes:
        n_jobs: How many jobs run at once, on disjoint devices.
    """

    _target_: str = "hydra_plugins.es2_launcher.launcher.ES2Launcher"
    n_jobs: int = 1


ConfigStore.instance().store(
    group="hydra/launcher", name="es2", node=ES2LauncherConf, provider="es2_launcher"
)


class ES2Launcher(BasicLauncher):  # type: ignore[misc]
    """One job after the other in this process, or several at once in processes of their own.

    A job for several devices has a process for each of them either way.
    """

    def __init__(self, n_jobs: int = 1) -> None:
        super().__init__()
        self.n_jobs = n_jobs

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs the jobs with these words; the first has the number `initial_job_idx`."""
        if self.n_jobs == 1:
            return super().launch(job_overrides, initial_job_idx)
        from es2_lightning.config.jobs_at_once import launch

        assert self.hydra_context is not None and self.config is not None
        return launch(
            job_overrides,
            first=initial_job_idx,
            n_jobs=self.n_jobs,
            sweep=self.config,
            loader=self.hydra_context.config_loader,
        )
