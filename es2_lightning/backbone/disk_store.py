"""Rows in a folder: memory-mapped safetensors files, each whole in itself, and one fingerprint.

A file holds its rows' keys and lengths beside what is held of them, and appears only when it is
complete, so a build that is killed loses what it had not written yet and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from es2_lightning.atomic_files import TEMPORARY, replacing, write_atomically
from es2_lightning.backbone.cache_fingerprint import Fingerprint, fingerprint_digest
from es2_lightning.backbone.model_identity import differences
from es2_lightning.backbone.ranks import Ranks
from es2_lightning.backbone.row_store import KEY_BYTES, Block, RowStore
from es2_lightning.errors import UserError

log = logging.getLogger(__name__)

FINGERPRINT, LOCK = "fingerprint.json", ".lock"
ROWS = "rows-{}.safetensors"
KEYS, LENGTHS = "keys", "lengths"
FILE_BYTES = 64 * 2**20
FILE_SECONDS = 30.0
"""A file is written once so much is new, or so long ago the last one was."""


class DiskStore(RowStore):
    """Rows in a folder that several processes and runs may share.

    Args:
        folder: Made where it is missing.
        fingerprint: What the rows are good for.
        file_bytes: How much is new when a file is written; at the end of a build, less.

    Raises:
        UserError: The folder has another fingerprint, or nothing can be written there.
    """

    def __init__(
        self, folder: Path, fingerprint: Fingerprint, *, file_bytes: int = FILE_BYTES
    ) -> None:
        super().__init__()
        self.folder = folder
        self.where = f"in {folder}"
        self._file_bytes = file_bytes
        self._digest = fingerprint_digest(fingerprint)
        self._opened: set[str] = set()
        self._written_at = 0.0
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        if not (folder / FINGERPRINT).exists():
            with self._alone():
                self._claim(fingerprint)
        self._check(fingerprint)

    def add(self, block: Block) -> None:
        """Hold more rows; during a build, written to the folder as they come."""
        self._new.append(block)
        self._index(block)
        full = sum(b.nbytes for b in self._new) >= self._file_bytes
        if self._building and (full or time.monotonic() - self._written_at > FILE_SECONDS):
            self._write()

    @contextmanager
    def building(self, ranks: Ranks) -> Iterator[None]:
        """Other runs wait meanwhile; what they wrote before is here, what is added is theirs."""
        # Who still opens the store may need the folder that the first one is about to hold.
        ranks.barrier()
        with self._alone() if ranks.rank == 0 else _nothing():
            if ranks.rank == 0:
                for left in self.folder.glob(f".*{TEMPORARY}"):
                    left.unlink(missing_ok=True)
            ranks.barrier()
            self._read_new_files()
            self._building, self._written_at = True, time.monotonic()
            try:
                yield
            finally:
                self._building = False
                self._write()
            ranks.barrier()
            self._read_new_files()

    def _claim(self, fingerprint: Fingerprint) -> None:
        if (self.folder / FINGERPRINT).exists():  # Another run was quicker.
            return
        if any(self.folder.glob(ROWS.format("*"))):
            raise UserError(
                f"{self._named}: there are rows in it, but no {FINGERPRINT} that says what they "
                f"are good for. {self._accepted}"
            )
        with self._writing():
            write_atomically(self.folder / FINGERPRINT, json.dumps(dict(fingerprint), indent=1))

    def _check(self, fingerprint: Fingerprint) -> None:
        try:
            there = json.loads((self.folder / FINGERPRINT).read_text(encoding="utf-8"))
            if not isinstance(there, dict):
                raise ValueError("it holds no components")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._named}: its {FINGERPRINT} cannot be read ({error}). {self._accepted}"
            ) from error
        if differing := differences(there, fingerprint):
            raise UserError(
                f"{self._named}: what is in it was computed otherwise than this run would: "
                f"{'; '.join(differing)}. {self._accepted}"
            )

    def _write(self) -> None:
        """All that is new becomes a file, and is read from there on."""
        if not self._new:
            return
        block = Block.joined(self._new)
        tensors = {
            KEYS: torch.frombuffer(bytearray(b"".join(block.keys)), dtype=torch.uint8),
            LENGTHS: torch.tensor(block.lengths),
            **{name: column.contiguous() for name, column in block.columns.items()},
        }
        name = ROWS.format(uuid.uuid4().hex)
        about = {"fingerprint": self._digest, "checksum": _checksum(tensors)}
        with self._writing(), replacing(self.folder / name) as temporary:
            save_file(tensors, temporary, metadata=about)
            # safetensors makes files that no other user can read.
            shutil.copymode(self.folder / FINGERPRINT, temporary)
        self._new.clear()
        self._written_at = time.monotonic()
        self._index(self._read(self.folder / name))
        self._opened.add(name)

    def _read_new_files(self) -> None:
        for path in sorted(self.folder.glob(ROWS.format("*"))):
            if path.name in self._opened:
                continue
            try:
                self._index(self._read(path, verify=True))
            except FileNotFoundError:  # Another process found it damaged.
                continue
            except OSError as error:
                raise UserError(
                    f"{self._named}: {path.name} in it cannot be read ({error.strerror}). "
                    f"{self._accepted}"
                ) from error
            except (SafetensorError, KeyError, _Damaged) as error:
                log.warning(
                    "%s is damaged (%s): it is deleted, and its rows are computed again",
                    *(path, error),
                )
                path.unlink(missing_ok=True)
            else:
                self._opened.add(path.name)

    def _read(self, path: Path, *, verify: bool = False) -> Block:
        """A file's rows, memory-mapped."""
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if verify:
            if about["checksum"] != _checksum(tensors):
                raise _Damaged("its checksum is another one")
            if about["fingerprint"] != self._digest:
                raise UserError(
                    f"{self._named}: {path.name} in it was computed otherwise than "
                    f"{FINGERPRINT} says. {self._accepted}"
                )
        raw, lengths = tensors.pop(KEYS).numpy().tobytes(), tensors.pop(LENGTHS).tolist()
        keys = [raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES)]
        return Block(tuple(keys), tuple(lengths), tensors)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the folder for this process; a process that is killed lets go of it too.

        Where the system has no such locks, nothing is held: files appear whole all the same, and
        at worst two runs compute the same rows.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with self._writing():
            file = (self.folder / LOCK).open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("Waiting for another run that builds the reference cache %s", self.where)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # A file system without locks.
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self._named}: nothing can be written there ({reason}). Accepted: "
                "model.reference_cache.folder=<another folder>, or null to hold it in memory"
            ) from error

    @property
    def _named(self) -> str:
        return f"model.reference_cache.folder={self.folder}"

    @property
    def _accepted(self) -> str:
        return "Accepted: another folder, or this one once it was deleted"


class _Damaged(Exception):
    """A file does not hold what was written."""


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
