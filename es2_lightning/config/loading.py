"""Opens Hydra's config loader on our config folder, without running anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from es2_lightning.errors import UserError


@contextmanager
def config_loader(
    conf: Path, arguments: argparse.Namespace, *, task_name: str
) -> Iterator[ConfigLoaderImpl]:
    """Hydra's loader as `hydra.main` will build it from these command-line arguments.

    Args:
        conf: the config folder, unless the arguments name another (`--config-path`).
        arguments: as parsed by Hydra's own parser.

    Raises:
        UserError: a folder named in the arguments is not there.
    """
    main = Path(arguments.config_path).resolve() if arguments.config_path else conf
    folders = {"--config-path": arguments.config_path, "--config-dir": arguments.config_dir}
    for flag, folder in folders.items():
        if folder is not None and not Path(folder).is_dir():
            raise UserError(
                f"{flag} {folder}: there is no such folder ({Path(folder).resolve()}). "
                "Accepted: a folder with config files."
            )
    search_path = create_config_search_path(str(main))
    if arguments.config_dir:
        search_path.prepend(
            provider="command-line",
            path=f"file://{Path(arguments.config_dir).resolve()}",
            anchor=SearchPathQuery(provider="schema"),
        )
    hydra = Hydra.create_main_hydra2(task_name, search_path)
    before = HydraConfig.instance().cfg
    try:
        assert isinstance(hydra.config_loader, ConfigLoaderImpl)
        yield hydra.config_loader
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = before
