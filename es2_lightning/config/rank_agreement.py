"""The processes of a job agree before anything long happens: on the folder, and on the config.

Rank 0 decides the folder. The configs are compared key by key, so that a difference is told by
name: ranks that train with different values go on together without an error, to no use.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es2_lightning.config.ranks import Rank
from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

TIMEOUT = timedelta(minutes=5)
"""For the slowest rank to arrive."""
_NAMED = 5


class RankAgreement:
    """What the processes of a job tell one another before they have a process group.

    Args:
        rank: This one's.
        folder: One that they share, where there is one; None: they meet over the network, where
            torchrun or SLURM says.
    """

    def __init__(self, rank: Rank, folder: Path | None) -> None:
        self.rank = rank
        self._store = _store(rank, folder)

    def folder(self, own: Path | None) -> Path:
        """The folder of the run, as rank 0 decided it.

        Args:
            own: What rank 0 decided; None on the others.

        Raises:
            UserError: Rank 0 does not tell.
        """
        if self.rank.number == 0:
            self._tell("folder", str(own))
        return Path(self._told("folder"))

    def same_config(self, config: Any) -> None:
        """Compare the configs.

        Args:
            config: This rank's, resolved, in plain containers.

        Raises:
            UserError: They differ, on each of the ranks; it names the keys.
        """
        own = dict(flat(config))
        if self.rank.number == 0:
            self._tell("config", json.dumps(own))
            self._tell("digest", digest(own))
            found = [self._told(f"differs_{n}") for n in range(1, self.rank.world)]
            self._tell("verdict", next(filter(None, found), ""))
        else:
            same = self._told("digest") == digest(own)
            words = "" if same else difference(json.loads(self._told("config")), own)
            self._tell(
                f"differs_{self.rank.number}", words and f"rank {self.rank.number} has {words}"
            )
        verdict = self._told("verdict")
        self._leave()
        if verdict:
            raise UserError(
                f"The processes of this run were started with different configs: {verdict}. "
                "Accepted: the same words and the same environment on each of them."
            )

    def _leave(self) -> None:
        """The one that keeps the store goes last."""
        if self.rank.number:
            self._tell(f"left_{self.rank.number}", "1")
        else:
            for number in range(1, self.rank.world):
                self._told(f"left_{number}")

    def _tell(self, key: str, value: str) -> None:
        # A FileStore takes no empty value.
        self._store.set(key, f"={value}")

    def _told(self, key: str) -> str:
        try:
            return self._store.get(key).decode().removeprefix("=")
        except RuntimeError as error:
            raise UserError(
                f"Rank {self.rank.number} of {self.rank.world} waited {TIMEOUT.seconds // 60} "
                f"minutes in vain for the others ({str(error).splitlines()[0]}). Are they all "
                "started?"
            ) from error


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested containers with their keys, joined by dots."""
    items = (
        config.items()
        if isinstance(config, dict)
        else enumerate(config)
        if isinstance(config, list)
        else ()
    )
    for key, value in items:
        if isinstance(value, (dict, list)) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, (int, float, str)) else str(value)


def digest(leaves: dict[str, Any]) -> str:
    """A hash of a config's leaves, whatever their order."""
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


def difference(first: dict[str, Any], own: dict[str, Any]) -> str:
    """The keys whose values differ, with both values, in words."""
    absent = "nothing"
    keys = sorted(
        key for key in first.keys() | own.keys() if first.get(key, absent) != own.get(key, absent)
    )
    told = [
        f"{key}={own.get(key, absent)} where rank 0 has {first.get(key, absent)}"
        for key in keys[:_NAMED]
    ]
    if len(keys) > _NAMED:
        told.append(f"{len(keys) - _NAMED} more keys differ")
    return ", ".join(told)


def _store(rank: Rank, folder: Path | None) -> Store:
    from torch.distributed import (  # type: ignore[attr-defined]
        FileStore,
        PrefixStore,
        TCPStore,
    )

    if folder is not None:
        return FileStore(str(folder / "store"), rank.world)
    address, port = _meeting_point()
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    # Where torchrun keeps no store, rank 0 does: beside the port that training will take.
    port = port if of_torchrun else (port + 7919 if port < 50000 else port - 7919)
    try:
        store = TCPStore(
            address,
            port,
            rank.world,
            is_master=rank.number == 0 and not of_torchrun,
            timeout=TIMEOUT,
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise UserError(
            f"Rank {rank.number} of {rank.world} does not reach rank 0 at {address}:{port} "
            f"({str(error).splitlines()[0]}). Set MASTER_ADDR and MASTER_PORT to an address of "
            "rank 0 and a port that is free there."
        ) from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"es2/{attempt}", store)


def _meeting_point() -> tuple[str, int]:
    if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    if "SLURM_PROCID" in os.environ:
        # Without asking whether srun exists, which it does not in a container.
        nodes = os.environ.get("SLURM_NODELIST", "127.0.0.1")
        return SLURMEnvironment.resolve_root_node_address(nodes), 15000 + int(
            os.environ.get("SLURM_JOB_ID", "0")[-4:]
        )
    environment = LightningEnvironment()
    return environment.main_address, environment.main_port
