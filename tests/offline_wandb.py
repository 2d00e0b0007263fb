"""A W&B run's own file, read back: LevelDB's log format around W&B's protobuf records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class OfflineRun:
    """What a run told W&B.

    Attributes:
        run: The run record: id, group, job type, tags, config.
        metrics: The values of each key, in their order.
        media: The type of each key that is no number: `table-file`, `image-file`.
        config: What it was started with, and told since.
        artifacts: The artifacts' records.
        exit_code: None: it was never finished.
    """

    run: Any
    metrics: dict[str, list[float]]
    media: dict[str, str]
    config: dict[str, Any]
    artifacts: list[Any]
    exit_code: int | None

    def artifact(self, kind: str) -> Any:
        """The one artifact of that type."""
        (found,) = (a for a in self.artifacts if a.type == kind)
        return found


def offline_runs(folder: Path) -> list[OfflineRun]:
    """All runs below a folder, in the order in which they began."""
    files = sorted(folder.rglob("*.wandb"), key=lambda path: path.parent.name)
    return [read(path) for path in files]


def read(path: Path) -> OfflineRun:
    """One run. W&B's own process may write for a moment when `finish` has returned."""
    deadline = time.monotonic() + 20
    while (found := _read(path)).exit_code is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _read(path: Path) -> OfflineRun:
    found = OfflineRun(None, {}, {}, {}, [], None)
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found = replace(found, run=record.run)
            found.config.update(_items(record.run.config.update))
        elif kind == "config":
            found.config.update(_items(record.config.update))
        elif kind == "history":
            for key, value in _items(record.history.item).items():
                name, _, last = key.rpartition("/")
                if last == "_type":
                    found.media[name] = value
                elif isinstance(value, (int, float)) and not key.startswith("_"):
                    found.metrics.setdefault(key, []).append(value)
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found = replace(found, exit_code=record.exit.exit_code)
    for key in [k for k in found.metrics if k.rpartition("/")[0] in found.media]:
        del found.metrics[key]  # The size of a picture, the rows of a table.
    return found


def _items(items: Any) -> dict[str, Any]:
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json or "null")
        for item in items
    }


def _records(data: bytes) -> Iterator[bytes]:
    at, record = 7, b""  # The file begins with ":W&B", a magic number and a version.
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER.size:
            at += left
            continue
        if at + HEADER.size > len(data):
            return
        _, length, kind = HEADER.unpack_from(data, at)
        part = data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if len(part) < length or kind == 0:
            return  # Still being written.
        record = part if kind in (FULL, FIRST) else record + part
        if kind in (FULL, LAST):
            yield record
