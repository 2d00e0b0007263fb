"""The sweep that the same words started before: started again, it goes on instead of anew."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path

import es2_lightning
from es2_lightning.atomic_files import write_atomically
from es2_lightning.config.location import conf_dir

FILE = "sweep.json"
NO_MATTER = ("ckpt_path=", "hydra.sweep.dir=", "hydra.launcher.", "hydra/launcher=")
"""Words that change where and how jobs run, and nothing of what they are."""


def remember_sweep(folder: Path) -> None:
    """Leave in a sweep's folder what it was started with."""
    write_atomically(folder / FILE, json.dumps(_started_with(), indent=1) + "\n")


def same_sweep(root: Path) -> Path | None:
    """The newest sweep below `root` that this command line started before; None if there is none.

    What another version of the package or of its configs left does not count: its jobs may have
    come to something else.
    """
    wanted = _started_with()
    found = [path for path in root.glob(f"*/{FILE}") if _read(path) == wanted]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else newest.parent


def _started_with() -> dict[str, object]:
    words = [word for word in sys.argv[1:] if not word.startswith(NO_MATTER)]
    return {"words": words, "code": _code_digest()}


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


@cache
def _code_digest() -> str:
    """12 hex digits of the package's code and configs."""
    package = Path(es2_lightning.__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted(package.rglob("*.py")), *sorted(conf_dir().rglob("*.yaml"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
