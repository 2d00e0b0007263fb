"""A cached reference answers as the live one does, and computes nothing twice."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from es2_lightning.backbone import disk_store, reference_cache
from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.cache_fingerprint import cache_fingerprint
from es2_lightning.backbone.cache_rows import PASS_ROWS, cache_bytes, plan_passes
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.compatibility import check_training
from es2_lightning.backbone.head_statistics import HeadStatistics, head_statistics
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.backbone.model_identity import differences
from es2_lightning.backbone.reference import AdapterReference, HiddenOutputs, ModelReference
from es2_lightning.backbone.reference_cache import (
    CachedReference,
    make_cached_reference,
)
from es2_lightning.backbone.row_store import drop_memory_stores
from es2_lightning.backbone.settings import (
    LoraSettings,
    ModelSettings,
    ReferenceCacheSettings,
)
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError

from ..tiny_models import Architecture, tiny_chat_model

ROWS = [
    TokenRow((1, 4, 9, 12, 30), 4, (0, 1, 2, 3, 4)),
    TokenRow((1, 4, 20, 21, 22, 23, 5, 8, 9), 6, (6, 7)),
    TokenRow((1, 4, 20, 21, 22, 23, 5, 8, 9), 6, (6,)),
    TokenRow((1, 4, 40, 5), 3),
    TokenRow((1, 4, 11, 5), 3, (3,)),
]
OUTPUTS = 9


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    drop_memory_stores()
    yield
    drop_memory_stores()


class Counting:
    """Counts the rows that a live reference computes."""

    def __init__(self, live: Any) -> None:
        self.live, self.rows = live, 0

    def outputs(self, rows: Sequence[TokenRow]) -> HiddenOutputs:
        self.rows += len(rows)
        return self.live.outputs(rows)

    def chat_model(self) -> Any:
        return self.live.chat_model()


def tuned(architecture: Architecture = "llama", **changed: Any) -> ChatModel:
    """With an adapter that has left its start, so that the base differs from it."""
    chat_model = tiny_chat_model(architecture, **changed)
    chat_model.model = add_lora(chat_model.model, r=4)
    for name, parameter in chat_model.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return chat_model


def cached(
    chat_model: ChatModel,
    *,
    folder: Path | None = None,
    hold: str = "hidden_states",
    dtype: str | None = None,
    mode: str = "lora",
    max_length: int = 128,
) -> tuple[CachedReference, Counting]:
    chat_model.renderer.max_length = max_length
    settings = ModelSettings(
        name_or_path="tiny",
        mode=mode,
        reference="cached",
        reference_cache=ReferenceCacheSettings(
            hold=hold, folder=None if folder is None else str(folder), dtype=dtype
        ),
    )
    reference = make_cached_reference(chat_model, settings, packing="off", precision="32-true")
    counting = Counting(reference._live)
    reference._live = counting
    return reference, counting


def hidden(reference: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
    outputs = reference.outputs(rows)
    assert isinstance(outputs, HiddenOutputs) and not outputs.hidden_ED.requires_grad
    return outputs.hidden_ED


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_cached_reference_answers_as_the_live_one(
    architecture: Architecture, on_disk: bool, tmp_path: Path
) -> None:
    chat_model = tuned(architecture)
    live = AdapterReference(chat_model)
    folder = tmp_path / "cache" if on_disk else None
    reference, counting = cached(chat_model, folder=folder)
    reference.ensure(ROWS)
    assert counting.rows == 4
    wanted = live.outputs(ROWS)
    found = reference.outputs(ROWS)
    assert isinstance(found, HiddenOutputs) and isinstance(found.head, LinearHead)
    # Other rows in the pass: equal to rounding.
    torch.testing.assert_close(found.hidden_ED, wanted.hidden_ED, rtol=1e-5, atol=1e-5)
    assert isinstance(wanted.head, LinearHead)
    assert torch.equal(found.head.logits(wanted.hidden_ED), wanted.head.logits(wanted.hidden_ED))
    again, counting = cached(chat_model, folder=folder)
    again.ensure(reversed(ROWS))
    assert counting.rows == 0
    assert torch.equal(hidden(again, ROWS), found.hidden_ED)


def test_a_row_on_its_own_is_held_bit_by_bit() -> None:
    chat_model = tuned()
    live = AdapterReference(chat_model)
    reference, _ = cached(chat_model)
    for row in ROWS:
        if row.output_positions:
            reference.ensure([row])
            # Tokens behind the last output are not computed.
            alone = replace(row, last_prompt_index=row.output_positions[-1])
            assert torch.equal(hidden(reference, [row]), live.outputs([alone]).hidden_ED)


def test_rows_that_nobody_announced_are_computed_late(caplog: pytest.LogCaptureFixture) -> None:
    chat_model = tuned()
    reference, counting = cached(chat_model)
    reference.ensure(ROWS[:1])
    chat_model.model.train()
    with caplog.at_level(logging.DEBUG):
        found = hidden(reference, ROWS + ROWS)
    assert "3 rows are computed late" in caplog.text and counting.rows == 4
    assert chat_model.model.training and len(found) == 2 * OUTPUTS
    assert torch.equal(found[:OUTPUTS], found[OUTPUTS:])
    assert torch.equal(hidden(reference, ROWS), found[:OUTPUTS])
    assert counting.rows == 4


@pytest.mark.parametrize("hold", ["hidden_states", "statistics"])
def test_no_outputs_at_all(hold: str, tmp_path: Path) -> None:
    reference, counting = cached(tuned(), hold=hold, folder=tmp_path)
    reference.ensure([ROWS[3]])
    outputs = reference.outputs([ROWS[3]])
    widths = (
        [outputs.hidden_ED.shape]
        if isinstance(outputs, HiddenOutputs)
        else [outputs.expected_weight_PD.shape, (len(outputs), 32)]
    )
    assert all(tuple(shape) == (0, 32) for shape in widths) and counting.rows == 0


@pytest.mark.parametrize("on_disk", [False, True])
def test_statistics_are_those_of_the_live_outputs(on_disk: bool, tmp_path: Path) -> None:
    chat_model = tuned()
    reference, _ = cached(chat_model, hold="statistics", folder=tmp_path if on_disk else None)
    reference.ensure(ROWS)
    found = reference.outputs(ROWS)
    live = AdapterReference(chat_model).outputs(ROWS)
    assert isinstance(live.head, LinearHead) and isinstance(found, HeadStatistics)
    wanted = head_statistics(live.hidden_ED, live.head)
    for name in ("negative_entropy_P", "expected_weight_PD"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name))


def test_a_smaller_dtype_is_rounded_once_and_given_as_computed() -> None:
    chat_model = tuned()
    exact, rounded = cached(chat_model)[0], cached(chat_model, dtype="bfloat16")[0]
    exact.ensure(ROWS)
    rounded.ensure(ROWS)
    assert torch.equal(hidden(rounded, ROWS), hidden(exact, ROWS).bfloat16().float())
    assert hidden(rounded, []).dtype == torch.float32


def test_the_estimate_is_what_is_held() -> None:
    for hold, dtype in (
        ("hidden_states", None),
        ("hidden_states", "float16"),
        ("statistics", None),
    ):
        reference, _ = cached(tuned(), hold=hold, dtype=dtype)
        reference.ensure(ROWS)
        kind = torch.float16 if dtype else torch.float32
        assert reference._store.nbytes == cache_bytes(ROWS + ROWS, hold=hold, width=32, dtype=kind)


def test_progress_and_what_it_took_are_told() -> None:
    reference, _ = cached(tuned())
    reference._pass_tokens = 9
    told: list[tuple[str, int, int]] = []
    cost = reference.ensure(ROWS, progress=lambda *progress: told.append(progress))
    assert told == [("Reference cache", done, 4) for done in (1, 2, 3, 4)]
    assert (cost.computed, cost.found, cost.num_outputs) == (4, 0, OUTPUTS)
    assert cost.nbytes == OUTPUTS * 32 * 4 and cost.seconds > 0
    assert str(reference.ensure(ROWS)).startswith("0 rows computed in 0.0 s, 4 were there; 9 posit")


def test_passes_hold_rows_of_like_lengths_within_their_budget() -> None:
    rows = [TokenRow((1,) * n, n - 1, (n - 1,)) for n in (3, 50, 7, 2, 9, 8, 2)]
    passes = plan_passes(rows, tokens=20)
    assert sorted(r.needed_length for p in passes for r in p) == [2, 2, 3, 7, 8, 9, 50]
    assert [[r.needed_length for r in p] for p in passes] == [[50], [9, 8], [7, 3], [2, 2]]
    many = [TokenRow((1,), 0, (0,))] * (2 * PASS_ROWS + 1)
    assert max(map(len, plan_passes(many, tokens=10**6))) == PASS_ROWS


def test_a_killed_build_computes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_model = tuned()
    monkeypatch.setattr(disk_store, "FILE_SECONDS", -1.0)
    reference, counting = cached(chat_model, folder=tmp_path)
    reference._pass_tokens = 9
    live = counting.outputs

    def dies(rows: Sequence[TokenRow]) -> HiddenOutputs:
        if counting.rows == 2:
            raise KeyboardInterrupt
        return live(rows)

    monkeypatch.setattr(counting, "outputs", dies)
    with pytest.raises(KeyboardInterrupt):
        reference.ensure(ROWS)
    again, counting = cached(chat_model, folder=tmp_path)
    again.ensure(ROWS)
    assert counting.rows == 2
    torch.testing.assert_close(
        hidden(again, ROWS), AdapterReference(chat_model).outputs(ROWS).hidden_ED
    )


def two_ranks(rank: int, folder: Path) -> dict[str, Any]:
    """What one of two processes does and finds."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2
    )
    found: dict[str, Any] = {}
    places = {"memory": None, "shared": folder / "shared", "apart": folder / f"of_{rank}"}
    for name, place in places.items():
        # In bfloat16, which not every backend sends by itself.
        reference, counting = cached(tuned(), folder=place, dtype="bfloat16")
        reference._pass_tokens = 9
        reference.ensure(ROWS[:3])
        found[name], found[f"{name} rows"] = [hidden(reference, ROWS[:3])], counting.rows
        # Rows that one of them has already, and fewer passes than processes.
        if rank == 0:
            reference.outputs(ROWS[4:])
        reference.ensure(ROWS)
        before = counting.rows
        found[name].append(hidden(reference, ROWS))
        assert counting.rows == before
    torch.distributed.destroy_process_group()
    return found


def test_two_processes_share_the_work_and_what_it_gives(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    script = (
        "import sys, torch; from pathlib import Path; "
        "from tests.backbone.test_reference_cache import two_ranks; "
        "rank, folder = int(sys.argv[1]), Path(sys.argv[2]); "
        "torch.save(two_ranks(rank, folder), folder / f'{rank}.pt')"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(tmp_path)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    alone, _ = cached(tuned(), dtype="bfloat16")
    alone._pass_tokens = 9
    alone.ensure(ROWS)
    for rank in (0, 1):
        for place in ("memory", "shared", "apart"):
            first, all_rows = found[rank][place]
            assert torch.equal(first, hidden(alone, ROWS[:3]))
            assert torch.equal(all_rows, hidden(alone, ROWS))
    # Of three passes each took its share; who has none left goes through the last with the other.
    assert [found[rank]["memory rows"] for rank in (0, 1)] == [2, 2]
    assert [found[rank]["shared rows"] for rank in (0, 1)] == [2, 2]
    # Without a folder in common, each has to compute the other's part as well.
    assert [found[rank]["apart rows"] for rank in (0, 1)] == [3, 4]


def changed_fingerprints() -> Iterator[tuple[str, dict[str, str]]]:
    """What a change of each component gives, with the component's name."""
    chat_model = tuned()
    words = {"hold": "hidden_states", "dtype": None, "packing": "off", "precision": "32-true"}

    def of(chat_model: ChatModel, **changed: Any) -> dict[str, str]:
        return cache_fingerprint(chat_model, **{**words, **changed})

    def after(component: str, change: Any) -> tuple[str, dict[str, str]]:
        other = copy.deepcopy(chat_model)
        other.renderer.tokenizer = other.tokenizer
        change(other)
        return component, of(other)

    def weight(c: ChatModel) -> None:
        next(c.model.get_base_model().parameters()).data[0, 0] += 1e-3

    yield "", of(chat_model)
    yield after("model's weights", weight)
    base = lambda c: c.model.get_base_model()  # noqa: E731
    yield after("model's config.json", lambda c: setattr(base(c).config, "rms_norm_eps", 1e-3))
    yield after("model.dtype", lambda c: base(c).bfloat16())
    yield after("model.attn_implementation", lambda c: base(c).set_attn_implementation("eager"))
    yield after("tokenizer", lambda c: c.tokenizer.add_tokens(["another"]))
    yield after("chat template", lambda c: setattr(c.tokenizer, "chat_template", "{{ 'x' }}"))
    for component, name, value in (
        ("model.chat_template_kwargs", "chat_template_kwargs", {"enable_thinking": False}),
        ("model.template_date", "template_date", date(2025, 1, 1)),
        ("model.system_prompt", "system_prompt", "Be brief."),
        ("model.max_length", "max_length", 64),
    ):
        yield after(component, lambda c, n=name, v=value: setattr(c.renderer, n, v))
    yield "model.reference_cache.hold", of(chat_model, hold="statistics")
    yield "model.reference_cache.dtype", of(chat_model, dtype="bfloat16")
    yield "step.packing", of(chat_model, packing="grid")
    yield "trainer.precision", of(chat_model, precision="bf16-mixed")
    torch.set_float32_matmul_precision("high")
    try:
        yield "precision of float32 products", of(chat_model)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_every_component_of_the_fingerprint_is_told_apart() -> None:
    (_, plain), *others = changed_fingerprints()
    for component, fingerprint in others:
        told = " ".join(differences(plain, fingerprint))
        assert f"{component} (" in told, component
        # Another dtype is other weights, too.
        assert component == "model.dtype" or len(differences(plain, fingerprint)) == 1, told
    covered = {component for component, _ in others}
    assert plain.keys() - covered == {"kind of device", "torch", "transformers"}


def test_the_adapter_and_the_prompts_seen_are_no_part_of_the_fingerprint() -> None:
    chat_model = tiny_chat_model()
    words: dict[str, Any] = {
        "hold": "statistics",
        "dtype": None,
        "packing": "off",
        "precision": "x",
    }
    plain = cache_fingerprint(chat_model, **words)
    chat_model.tokenizer(["w1", "w2 w3"], padding=True, truncation=True, max_length=4)
    chat_model.model = add_lora(chat_model.model, r=2)
    assert differences(plain, cache_fingerprint(chat_model, **words)) == []


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    chat_model = tuned()
    cached(chat_model, folder=tmp_path)[0].ensure(ROWS)
    with pytest.raises(UserError, match=r"model\.max_length \(128 there, 64 here\)"):
        cached(chat_model, folder=tmp_path, max_length=64)
    with pytest.raises(UserError, match="model's weights"):
        cached(tuned(seed=1), folder=tmp_path)


def test_where_all_weights_train_the_cache_is_all_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat_model = tiny_chat_model()
    chat_model.model.requires_grad_(True)
    base = copy.deepcopy(chat_model)
    monkeypatch.setattr(reference_cache, "load_chat_model", lambda _settings: copy.deepcopy(base))
    reference, _ = cached(chat_model, mode="full")
    with reference.chat_model() as before:
        assert before is chat_model
    reference.ensure(ROWS)
    with reference.chat_model() as before:
        assert before is chat_model
    optimizer = torch.optim.AdamW(chat_model.model.parameters(), lr=0.1)
    for parameter in chat_model.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    wanted, found = ModelReference(base).outputs(ROWS), reference.outputs(ROWS)
    assert isinstance(found, HiddenOutputs)
    torch.testing.assert_close(found.hidden_ED, wanted.hidden_ED, rtol=1e-5, atol=1e-5)
    assert isinstance(found.head, LinearHead) and isinstance(wanted.head, LinearHead)
    assert torch.equal(found.head.weight_VD, wanted.head.weight_VD) and not found.head.trains
    with pytest.raises(RuntimeError, match="given all rows before training"):
        reference.outputs([TokenRow((1, 2), 1, (1,))])
    with reference.chat_model() as loaded:
        assert torch.equal(loaded.model.lm_head.weight, wanted.head.weight_VD)
    drop_memory_stores()
    late, _ = cached(chat_model, mode="full")
    optimizer.step()
    with pytest.raises(RuntimeError, match="given all rows before training"):
        late.ensure(ROWS)


def test_a_head_with_an_adapter_is_held_without_it() -> None:
    chat_model = tiny_chat_model()
    base = copy.deepcopy(chat_model)
    chat_model.model = add_lora(chat_model.model, r=4, target_modules=["q_proj", "lm_head"])
    for name, parameter in chat_model.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)
    reference, _ = cached(chat_model)
    reference.ensure(ROWS)
    found, wanted = reference.outputs(ROWS), ModelReference(base).outputs(ROWS)
    assert isinstance(found, HiddenOutputs) and callable(found.head)
    assert isinstance(wanted.head, LinearHead)
    torch.testing.assert_close(found.head(found.hidden_ED), wanted.head.logits(wanted.hidden_ED))


@pytest.mark.parametrize(
    ("architecture", "mode", "cache", "target_modules", "told"),
    [
        ("gemma2", "lora", {"hold": "statistics"}, "all-linear", "soft-caps"),
        ("llama", "lora", {"hold": "statistics"}, ["lm_head"], "has an adapter"),
        ("llama", "full", {"hold": "statistics"}, "all-linear", "the head trains"),
        ("llama", "lora", {"hold": "statistics", "dtype": "bfloat16"}, "all-linear", "float32"),
        ("llama", "lora", {"folder": __file__}, "all-linear", "this is a file"),
    ],
)
def test_what_cannot_be_cached_is_told_before_weights_load(
    architecture: Architecture, mode: str, cache: dict[str, Any], target_modules: Any, told: str
) -> None:
    config = tiny_chat_model(architecture).model.config
    settings = ModelSettings(
        name_or_path="tiny",
        mode=mode,
        reference="cached",
        reference_cache=ReferenceCacheSettings(**cache),
        lora=LoraSettings(target_modules=target_modules),
    )
    with pytest.raises(UserError, match=f"model.reference_cache.*{told}.*Accepted: "):
        check_training(settings, config)
    check_training(replace(settings, reference_cache=ReferenceCacheSettings()), config)
