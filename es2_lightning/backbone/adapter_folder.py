"""Whether a folder holds an adapter; light to import, so that config errors answer at once."""

from __future__ import annotations

from pathlib import Path

from es2_lightning.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_adapter_folder(folder: Path) -> None:
    """Look for an adapter in peft's format without loading anything.

    Raises:
        UserError: There is no such folder, no adapter in it, or none in safetensors.
    """
    if not folder.is_dir():
        raise UserError(
            f"adapter={folder}: no such folder; accepted is a folder in peft's format, with "
            f"{CONFIG} and {WEIGHTS}, such as outputs/<run>/adapter"
        )
    if not (folder / CONFIG).is_file():
        inside = folder / "adapter" / CONFIG
        near = f" Did you mean {folder / 'adapter'}?" if inside.is_file() else ""
        raise UserError(
            f"adapter={folder}: there is no {CONFIG} in it, so it holds no peft adapter.{near}"
        )
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"adapter={folder}: there is no {WEIGHTS} in it; only safetensors are read, since a "
            "pickled file could run code"
        )
