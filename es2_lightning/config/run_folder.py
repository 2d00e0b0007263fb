"""Where a run writes, decided once: a new folder, or the one whose checkpoint is resumed.

As OmegaConf resolvers, cached so that every reading of a config gives the same folder:

    hydra:
      run: {dir: "${run_folder:${ckpt_path}}"}
      sweep: {dir: "${sweep_folder:${ckpt_path}}"}
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from es2_lightning.config import job_record, slurm_job
from es2_lightning.config.earlier_run import model_name
from es2_lightning.config.location import package_path
from es2_lightning.config.model_variant import variant
from es2_lightning.config.same_sweep import same_sweep
from es2_lightning.errors import UserError

ROOT = Path("outputs")
"""Below the folder in which the command is started."""
SWEEPS = ROOT / "sweeps"
LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
TIMESTAMP = "%Y-%m-%d_%H-%M-%S"


def run_folder(ckpt_path: str | None = None, *, root: Path = ROOT, reserve: bool = True) -> Path:
    """The folder of a single run.

    Args:
        ckpt_path: `last` resumes: the folder is that of the run that saved a `last.ckpt` latest.
        root: holds the runs' folders.
        reserve: make the new folder; otherwise only say which it would be.

    Raises:
        UserError: `last` is asked for and no run has a last checkpoint.
    """
    if (earlier := slurm_job.earlier_folder(root)) is not None:
        return earlier
    return newest_run(root) if ckpt_path == "last" else new_folder(root, reserve=reserve)


def newest_run(root: Path = ROOT) -> Path:
    """The folder below `root` whose last checkpoint is the newest.

    Raises:
        UserError: there is none.
    """
    checkpoints = [path for path in root.glob(f"*/{LAST_CHECKPOINT}") if path.exists()]
    if not checkpoints:
        raise UserError(
            "ckpt_path=last: there is no run to resume. Looked for "
            f"{root.resolve()}/*/{LAST_CHECKPOINT}. Accepted: ckpt_path=last with "
            "hydra.run.dir=<the run's folder>, or ckpt_path=<a checkpoint file>."
        )
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime)
    return newest.parents[len(LAST_CHECKPOINT.parts) - 1]


def sweep_folder(
    ckpt_path: str | None = None, *, root: Path = SWEEPS, reserve: bool = True
) -> Path:
    """The folder of a sweep: that of the same sweep, if it was started before.

    Args:
        ckpt_path: `last` goes on: the folder is that of the newest sweep, whatever its words.
        root: holds the sweeps' folders.
        reserve: make the new folder; otherwise only say which it would be.

    Raises:
        UserError: `last` is asked for and there is no sweep.
    """
    if (earlier := slurm_job.earlier_folder(root)) is not None:
        return earlier
    if ckpt_path == "last":
        return newest_sweep(root)
    return same_sweep(root) or new_folder(root, reserve=reserve)


def newest_sweep(root: Path = SWEEPS) -> Path:
    """The folder below `root` in which a job began or ended last.

    Raises:
        UserError: there is none.
    """
    jobs = list(root.glob(f"*/*/{job_record.FILE}"))
    if not jobs:
        raise UserError(
            "ckpt_path=last: there is no sweep to go on with. Looked for "
            f"{root.resolve()}/*/*/{job_record.FILE}. Accepted: hydra.sweep.dir=<the sweep's "
            "folder>, or a new sweep, without ckpt_path."
        )
    return max(jobs, key=lambda path: path.stat().st_mtime).parents[1]


def new_folder(root: Path, *, reserve: bool = True) -> Path:
    """A folder named for the time, below `root`, that did not exist before."""
    stamp = datetime.now().strftime(TIMESTAMP)
    number = 1
    while True:
        folder = root / (stamp if number == 1 else f"{stamp}_{number}")
        number += 1
        if not reserve:
            if not folder.exists():
                return folder
            continue
        try:
            # Making it is what reserves it: two runs may start in the same second.
            folder.mkdir(parents=True)
            slurm_job.remember(folder)
            return folder
        except FileExistsError:
            continue


def evaluation_folder(run: str | None, adapter: str | None, model: str | None) -> Path:
    """Where an evaluation writes: the same for the same model, so that it can go on.

    Args:
        run: A training run's folder; its evaluation stands in it.
        adapter: An adapter's folder.
        model: A Hub id or a folder; None: the run's.
    """
    if run:
        return Path(run) / "evaluation"
    model = model or "model"  # That none was given is told where it is needed.
    measured = "\0".join(str(Path(name).absolute()) for name in (model, adapter or ""))
    name = Path(adapter or model).name or "model"
    if adapter and name == "adapter":
        name = Path(adapter).absolute().parent.name
    return ROOT / "evaluations" / f"{name}-{hashlib.sha256(measured.encode()).hexdigest()[:8]}"


def register_resolvers(*, reserve: bool) -> None:
    """Registers `run_folder`, `sweep_folder`, `evaluation_folder`, `run_model`, `package_path` and
    `variant`.

    With `reserve=False` they make nothing: for looking at a config without running it.
    """
    OmegaConf.register_new_resolver(
        "run_folder",
        lambda ckpt_path=None: str(run_folder(ckpt_path, reserve=reserve)),
        use_cache=True,
        replace=True,
    )
    OmegaConf.register_new_resolver(
        "sweep_folder",
        lambda ckpt_path=None: str(sweep_folder(ckpt_path, reserve=reserve)),
        use_cache=True,
        replace=True,
    )
    OmegaConf.register_new_resolver(
        "evaluation_folder",
        lambda run, adapter, model: str(evaluation_folder(run, adapter, model)),
        replace=True,
    )
    OmegaConf.register_new_resolver("run_model", model_name, replace=True)
    OmegaConf.register_new_resolver("package_path", package_path, replace=True)
    OmegaConf.register_new_resolver("variant", variant, replace=True)
