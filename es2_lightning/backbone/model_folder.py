"""What a model's config.json says, read without transformers, so that config errors answer at once.

Where this cannot tell, transformers does: nothing is refused here that it would take.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings import ModelSettings

CONFIG = "config.json"
DEPTHS = ("num_hidden_layers", "n_layer")
"""What models name the number of their blocks; n_layer is GPT-2's."""
OTHER_PARTS = ("encoder", "decoder", "generator", "text_encoder")
"""Beside `text_config`, parts of a model of which transformers chooses one."""


def read_config_json(settings: ModelSettings) -> dict[str, Any] | None:
    """The config.json of a local folder, or of a repository that was downloaded earlier.

    Returns:
        None where it is not there, cannot be read, or is read by code of the repository's own.

    Raises:
        UserError: A folder is named that is not there.
    """
    name = settings.name_or_path
    refuse_missing_folder(name)
    folder = Path(name).expanduser()
    path = folder / CONFIG if folder.is_dir() else _downloaded(name, settings.revision)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "auto_map" not in found else None


def text_part(config: dict[str, Any]) -> dict[str, Any] | None:
    """Of a model of several kinds of input, the part that is a language model."""
    if any(isinstance(config.get(part), dict) for part in OTHER_PARTS):
        return None
    text = config.get("text_config", config)
    return text if isinstance(text, dict) else None


def depth_of(config: dict[str, Any]) -> int | None:
    """L, the number of blocks; None where the file leaves it to the architecture."""
    text = text_part(config) or {}
    numbers = {text[name] for name in DEPTHS if type(text.get(name)) is int}
    return numbers.pop() if len(numbers) == 1 else None


def _downloaded(repo_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo_id, CONFIG, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
