"""A ranker on disk: safetensors and a config.json, read without Lightning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from es2_lightning.atomic_files import replacing, write_atomically
from es2_lightning.backbone.direction_rankers import DirectionRanker
from es2_lightning.backbone.ranker import ResponseRanker
from es2_lightning.backbone.ranker_shape import RankerShape
from es2_lightning.backbone.response_states import StateReading
from es2_lightning.errors import UserError

WEIGHTS = "ranker.safetensors"
CONFIG = "config.json"
TRANSFORMER = "transformer"
DIRECTIONS = ("linear_probe", "mean_difference")
AnyRanker = ResponseRanker | DirectionRanker


def save_ranker(ranker: AnyRanker, folder: Path, *, about: Mapping[str, Any] | None = None) -> None:
    """Write a ranker into a folder, which is made where it is missing.

    Args:
        ranker: Either kind.
        folder: What is of an earlier ranker in it is replaced.
        about: Further words for config.json, such as the model that it was fitted for.
    """
    config: dict[str, Any] = {"reading": asdict(ranker.reading)}
    if isinstance(ranker, ResponseRanker):
        config |= {"kind": TRANSFORMER, "shape": asdict(ranker.shape)}
        tensors = {name: tensor.detach().cpu() for name, tensor in ranker.state_dict().items()}
    else:
        config |= {"kind": ranker.kind}
        bias = torch.tensor([ranker.bias], dtype=torch.float64)
        tensors = {"direction_D": ranker.direction_D, "bias": bias}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary)
    write_atomically(
        folder / CONFIG, json.dumps({**config, "about": dict(about or {})}, indent=2) + "\n"
    )


def load_ranker(folder: str | Path) -> AnyRanker:
    """The ranker that `save_ranker` wrote, in eval mode.

    Raises:
        UserError: There is none, or its files do not belong together.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(path / WEIGHTS)
        reading = StateReading(**config["reading"])
        if config["kind"] == TRANSFORMER:
            ranker = ResponseRanker(reading, RankerShape(**config["shape"]))
            ranker.load_state_dict(tensors)
            return ranker.eval()
        if config["kind"] not in DIRECTIONS:
            raise ValueError(f"a ranker of kind {config['kind']}")
        return DirectionRanker(
            config["kind"], reading, tensors["direction_D"], float(tensors["bias"])
        )
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"no ranker can be read from {path} ({reason}); accepted is a folder with {CONFIG} "
            f"and {WEIGHTS} as a ranker's run writes them"
        ) from error
