"""Where rows of a reference cache are held: what is put in comes out, or nothing does."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from es2_lightning.backbone import disk_store
from es2_lightning.backbone.disk_store import DiskStore
from es2_lightning.backbone.ranks import Ranks
from es2_lightning.backbone.row_store import (
    MOST_KEPT,
    Block,
    RowStore,
    drop_memory_stores,
    memory_store,
    row_key,
)
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError

FINGERPRINT = {"model's weights": "12ab", "model.max_length": "512"}
ALONE = Ranks(0, 1)


def key(number: int) -> bytes:
    return row_key(TokenRow((1, number), 1, (1,)))


def block(*numbers: int) -> Block:
    """Row n has n % 3 + 1 outputs, all n, of width 4, in bfloat16."""
    lengths = tuple(n % 3 + 1 for n in numbers)
    values = torch.tensor(
        [n for n, length in zip(numbers, lengths, strict=True) for _ in range(length)]
    )
    columns = {"state": values[:, None].repeat(1, 4).bfloat16(), "entropy": values.float()}
    return Block(tuple(map(key, numbers)), lengths, columns)


def check(store: RowStore, numbers: Sequence[int]) -> None:
    gathered, wanted = store.gather([key(n) for n in numbers]), block(*numbers).columns
    assert gathered.keys() == wanted.keys()
    for name in wanted:
        assert gathered[name].dtype == wanted[name].dtype
        assert torch.equal(gathered[name], wanted[name])


def built(folder: Path, *numbers: int) -> DiskStore:
    """A folder with two rows a file."""
    store = DiskStore(folder, FINGERPRINT, file_bytes=1)
    with store.building(ALONE):
        for i in range(0, len(numbers), 2):
            store.add(block(*numbers[i : i + 2]))
    return store


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_come_out_in_any_order_and_repeatedly(tmp_path: Path, on_disk: bool) -> None:
    store = DiskStore(tmp_path, FINGERPRINT) if on_disk else RowStore()
    with store.building(ALONE):
        store.add(block(1, 2))
        store.add(block(3))
        check(store, [3, 1])
    store.add(block(7))
    check(store, [2, 7, 3, 2, 1])
    assert store.missing([key(n) for n in (1, 8, 3)]) == [1]
    assert (len(store), store.num_outputs) == (4, 2 + 3 + 1 + 2)
    assert store.nbytes == 8 * (4 * 2 + 4)
    with pytest.raises(KeyError):
        store.gather([key(8)])


def test_a_folder_is_read_by_the_next_run_and_grows(tmp_path: Path) -> None:
    built(tmp_path, 1, 2, 3)
    again = DiskStore(tmp_path, FINGERPRINT)
    with again.building(ALONE):
        assert again.missing([key(n) for n in (1, 2, 3, 4)]) == [3]
        again.add(block(4))
    check(again, [4, 3, 2, 1])
    assert {f.stat().st_mode for f in tmp_path.glob("rows-*")} == {
        (tmp_path / "fingerprint.json").stat().st_mode
    }
    third = built(tmp_path)
    check(third, [1, 2, 3, 4])
    assert not list(tmp_path.glob(".*.part"))


def test_late_rows_reach_the_folder_with_the_next_build(tmp_path: Path) -> None:
    store = built(tmp_path, 1)
    store.add(block(5))
    check(store, [5, 1])
    assert len(list(tmp_path.glob("rows-*"))) == 1
    with store.building(ALONE):
        pass
    check(built(tmp_path), [5, 1])


def test_what_is_read_is_mapped_not_copied(tmp_path: Path) -> None:
    store = built(tmp_path, 1, 2)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    assert str(next(tmp_path.glob("rows-*"))) in maps.read_text()
    check(store, [1, 2])


def test_an_interrupted_build_keeps_what_it_had(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, FINGERPRINT)
    with pytest.raises(KeyboardInterrupt), store.building(ALONE):
        store.add(block(1, 2))
        raise KeyboardInterrupt
    check(built(tmp_path), [1, 2])


def test_a_slow_build_writes_before_a_file_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_store, "FILE_SECONDS", -1.0)
    store = DiskStore(tmp_path, FINGERPRINT)
    with store.building(ALONE):
        store.add(block(1))
        assert len(list(tmp_path.glob("rows-*"))) == 1


def test_a_build_that_is_killed_goes_on(tmp_path: Path) -> None:
    """kill -9 in the middle of a build: files that were complete serve, what it left does not."""
    script = f"""
import os, signal, sys
from pathlib import Path
from tests.backbone.test_row_stores import *
store = DiskStore(Path({str(tmp_path)!r}), FINGERPRINT, file_bytes=1)
with store.building(ALONE):
    store.add(block(1, 2))
    store.add(block(3))
    disk_store.save_file = lambda tensors, path, metadata: (
        Path(path).write_bytes(b"half"), os.kill(os.getpid(), signal.SIGKILL)
    )
    store.add(block(4))
"""
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".*.part"))
    store = DiskStore(tmp_path, FINGERPRINT)
    with store.building(ALONE):
        assert store.missing([key(n) for n in (1, 2, 3, 4)]) == [3]
        store.add(block(4))
    check(store, [1, 2, 3, 4])
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "headless"])
def test_damaged_files_are_noticed_and_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    built(tmp_path, 1, 2, 3)
    files = sorted(tmp_path.glob("rows-*"))
    of_three = next(f for f in files if load_file(f)["entropy"].tolist() == [3.0])
    content = of_three.read_bytes()
    if damage == "headless":
        save_file({"state": torch.ones(3)}, of_three)
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        of_three.write_bytes({"truncated": content[:-4], "empty": b"", "flipped": flipped}[damage])
    store = DiskStore(tmp_path, FINGERPRINT)
    with caplog.at_level(logging.WARNING), store.building(ALONE):
        assert store.missing([key(n) for n in (1, 2, 3)]) == [2]
        store.add(block(3))
    assert of_three.name in caplog.text and "computed again" in caplog.text
    assert not of_three.exists()
    check(built(tmp_path), [1, 2, 3])


def test_another_fingerprint_is_refused_and_named(tmp_path: Path) -> None:
    built(tmp_path, 1)
    with pytest.raises(UserError) as refused:
        DiskStore(tmp_path, {**FINGERPRINT, "model.max_length": "256"})
    told = str(refused.value)
    assert "model.max_length (512 there, 256 here)" in told and "weights" not in told
    assert f"folder={tmp_path}" in told and "Accepted: another folder" in told


def test_a_folder_that_does_not_say_what_it_is_for_is_refused(tmp_path: Path) -> None:
    built(tmp_path, 1)
    fingerprint = tmp_path / "fingerprint.json"
    for content in ("{", "[]"):
        fingerprint.write_text(content)
        with pytest.raises(UserError, match=r"cannot be read.*Accepted: another folder"):
            DiskStore(tmp_path, FINGERPRINT)
    fingerprint.unlink()
    with pytest.raises(UserError, match=r"no fingerprint\.json"):
        DiskStore(tmp_path, FINGERPRINT)


def test_a_file_from_another_cache_is_refused(tmp_path: Path) -> None:
    built(tmp_path / "a", 1)
    DiskStore(tmp_path / "b", {**FINGERPRINT, "model.max_length": "256"})
    file = next((tmp_path / "a").glob("rows-*"))
    file.rename(tmp_path / "b" / file.name)
    store = DiskStore(tmp_path / "b", {**FINGERPRINT, "model.max_length": "256"})
    with pytest.raises(UserError, match=file.name), store.building(ALONE):
        pass


def test_a_folder_that_takes_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"nothing can be written there.*Accepted"):
        DiskStore(tmp_path / "file" / "cache", FINGERPRINT)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = DiskStore(tmp_path / "cache", FINGERPRINT)
    monkeypatch.setattr(disk_store, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"), store.building(ALONE):
        store.add(block(1))


def test_another_run_waits_until_a_build_is_done(tmp_path: Path) -> None:
    """Its rows are there then, so nobody computes them twice."""
    script = f"""
from pathlib import Path
from tests.backbone.test_row_stores import *
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
store = DiskStore(Path({str(tmp_path)!r}), FINGERPRINT)
with store.building(ALONE):
    print("missing", store.missing([key(1), key(2)]), flush=True)
"""
    root = Path(__file__).parents[2]
    store = DiskStore(tmp_path, FINGERPRINT)
    with store.building(ALONE):
        other = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None
        assert "Waiting for another run" in other.stdout.readline()
        store.add(block(1))
    assert other.stdout.read() == "missing [1]\n"
    assert other.wait() == 0


def test_memory_outlives_its_user_until_it_is_dropped() -> None:
    drop_memory_stores()
    memory_store(FINGERPRINT).add(block(1))
    check(memory_store(dict(reversed(FINGERPRINT.items()))), [1])
    assert len(memory_store({**FINGERPRINT, "model.max_length": "256"})) == 0
    for n in range(MOST_KEPT - 1):
        memory_store({"n": str(n)})
        check(memory_store(FINGERPRINT), [1])
    for n in range(MOST_KEPT):
        memory_store({"n": str(n)})
    assert len(memory_store(FINGERPRINT)) == 0
    memory_store(FINGERPRINT).add(block(1))
    drop_memory_stores()
    assert len(memory_store(FINGERPRINT)) == 0


def test_a_key_is_of_what_the_outputs_depend_on() -> None:
    row = TokenRow((5, 6, 7, 8), 2, (1, 2))
    assert row_key(row) == row_key(TokenRow((5, 6, 7, 9, 1), 3, (1, 2)))
    others = [
        TokenRow((5, 6, 9, 8), 2, (1, 2)),
        TokenRow((5, 6, 7, 8), 2, (2,)),
        TokenRow((5, 6, 7, 8), 2, (0, 2)),
        TokenRow((5, 6, 7, 8), 2, (1, 2, 3)),
    ]
    assert len({row_key(row), *map(row_key, others)}) == 5
