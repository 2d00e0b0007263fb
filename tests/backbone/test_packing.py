"""Packed passes against padded ones, on every architecture, and when packing is not exact."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from es2_lightning.backbone.checkpointing import enable_checkpointing
from es2_lightning.backbone.layouts import Packing, lay_out, shared_prefix_length
from es2_lightning.backbone.packed_layout import MOST_GRIDS, like_lengths
from es2_lightning.backbone.packing_choice import choose_packing, has_dropout, rows_can_end
from es2_lightning.backbone.row_pass import run_rows
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.errors import UserError

from ..tiny_models import ARCHITECTURES, Architecture, tiny_chat_model


def some_rows(lengths: tuple[int, ...] = (9, 3, 17, 5, 12), prefix: int = 2) -> list[TokenRow]:
    """Rows that begin alike; every second one has outputs."""
    rng = random.Random(0)
    rows = []
    for number, length in enumerate(lengths):
        own = [10 + number, *(rng.randrange(6, 46) for _ in range(length - 1))]
        ids = (*range(6, 6 + prefix), *own)
        outputs = (1, len(ids) - 1) if number % 2 else ()
        rows.append(TokenRow(ids, len(ids) - 1, outputs))
    return rows


def states_of(model: Any, rows: list[TokenRow], **how: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Layers 1 and 2, and the outputs, in the rows' order."""
    layout = lay_out(rows, **how)
    found = run_rows(model, layout, layers=[1, 2])
    assert found.outputs is not None
    return found.layers[1], found.layers[2], found.outputs.index_select(0, layout.output_of)


ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""States are of the size of 1, and several families compute their norms in float32 at any dtype."""
PACKED: list[dict[str, Any]] = [
    {"packing": packing, "share_prefix": share, "drop": drop}
    for packing in ("grid", "block_mask")
    for share in (False, True)
    for drop in (False, True)
]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_have_the_states_of_padded_ones(
    architecture: Architecture, attention: str
) -> None:
    if (architecture, attention) == ("gemma2", "sdpa"):
        pytest.skip("soft-capped attention is not in sdpa")
    model = tiny_chat_model(architecture).model
    model.set_attn_implementation(attention)
    rows = some_rows()
    wanted = [
        states_of(model, [row], packing="off") if row.output_positions else None for row in rows
    ]
    for how in [{"packing": "off"}, {"packing": "off", "drop": True}, *PACKED]:
        with torch.no_grad():
            one, two, outputs = states_of(model, rows, **how)
        alone = [w for w in wanted if w is not None]
        torch.testing.assert_close(outputs, torch.cat([w[2] for w in alone]), **ROUNDING)
        for number, found in enumerate(wanted):
            if found is not None:
                torch.testing.assert_close(one[number], found[0][0], **ROUNDING)
                torch.testing.assert_close(two[number], found[1][0], **ROUNDING)
    assert model.config._attn_implementation == attention, "the model's own comes back"


def test_native_packing_finds_the_rows_by_their_positions() -> None:
    """As a variable-length kernel does; transformers does it for sdpa too, by a mask."""
    model = tiny_chat_model("llama").model.double()
    rows = some_rows()
    with torch.no_grad():
        for got, wanted in zip(
            states_of(model, rows, packing="native", drop=False),
            states_of(model, rows, packing="off"),
            strict=True,
        ):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
@pytest.mark.parametrize("packing", ["off", "grid", "block_mask"])
def test_recomputed_blocks_see_the_layout_of_their_forward_pass(
    architecture: Architecture, packing: Packing
) -> None:
    def gradient(*, recompute: bool) -> Tensor:
        model = tiny_chat_model(architecture).model.double().train()
        if recompute:
            enable_checkpointing(model)
        share = packing != "off"
        found = states_of(model, some_rows(), packing=packing, share_prefix=share, drop=True)
        sum(x.square().sum() for x in found).backward()  # type: ignore[union-attr]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(
        gradient(recompute=True), gradient(recompute=False), rtol=1e-9, atol=1e-9
    )


def test_no_padding_is_computed_and_a_prefix_once() -> None:
    rows = some_rows()
    own = [len(row.token_ids) - 2 for row in rows]
    assert lay_out(rows).num_tokens == len(rows) * (max(own) + 2)
    assert lay_out(rows, packing="grid").num_tokens == sum(own) + 2 * len(rows)
    shared = lay_out(rows, packing="grid", share_prefix=True, drop=True)
    assert shared.num_tokens == sum(own) + 2
    assert shared.kept is not None and len(shared.kept) == 2 + own[1] + own[3]
    assert len(shared.output_index) == 3, "the output on the prefix is of both rows"
    assert shared.output_row.tolist() == [1, 1, 3, 3]
    assert shared.outputs_per_row.tolist() == [1, 2, 1, 2, 1]


def test_what_stands_behind_all_that_matters_is_left_out() -> None:
    row = TokenRow((7, 8, 9, 10, 11), 1, (1, 2))
    assert row.needed_length == 3
    assert lay_out([row], packing="grid").num_tokens == 3


def test_the_shared_prefix_leaves_each_row_a_token_of_its_own() -> None:
    same = TokenRow((7, 8, 9), 2)
    assert shared_prefix_length([same, same]) == 2
    assert shared_prefix_length([same]) == 0
    assert shared_prefix_length([same, TokenRow((7, 6, 9), 2)]) == 1
    model = tiny_chat_model().model.double()
    rows = [TokenRow((7, 8, 9), 2, (0, 2)), TokenRow((7, 8, 9), 1, (1,))]
    with torch.no_grad():
        for got, wanted in zip(
            states_of(model, rows, packing="grid", share_prefix=True),
            states_of(model, rows, packing="off"),
            strict=True,
        ):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)


def test_rows_of_like_lengths_meet_on_a_grid() -> None:
    own = [300, 20, 22, 301, 21, 150]
    groups = like_lengths(own)
    assert sorted(sorted(own[i] for i in group) for group in groups) == [
        [20, 21, 22], [150], [300, 301],
    ]  # fmt: skip
    assert like_lengths([7] * 10) == [list(range(10))]
    assert len(like_lengths(list(range(1, 200)))) <= MOST_GRIDS


def test_a_model_whose_prompts_cannot_be_packed_pads_them(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_chat_model("qwen2").model
    model.config.layer_types = ["full_attention", "linear_attention"] * 2
    with caplog.at_level(logging.INFO):
        assert choose_packing(model, "auto", some_rows()) == "off"
    assert "padded, not packed" in caplog.text and "linear_attention" in caplog.text
    with pytest.raises(UserError, match=r"step\.packing=grid: .*step\.packing=off or auto"):
        choose_packing(model, "grid", some_rows())


def test_states_that_come_out_otherwise_are_noticed() -> None:
    """Here attention without regard to which prompt a token is of."""
    model = tiny_chat_model("llama").model
    assert choose_packing(model, "auto", some_rows()) == "grid"
    decoder = model.get_decoder()
    forward = decoder.forward

    def blind(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    decoder.forward = blind
    with pytest.raises(UserError, match="other hidden states"):
        choose_packing(model, "native", some_rows())
    assert choose_packing(model, "auto", some_rows()) == "off"


@pytest.mark.parametrize(
    ("architecture", "changed"),
    [
        ("qwen2_moe", {"use_sliding_window": True, "max_window_layers": 2}),
        ("phimoe", {"num_local_experts": 2}),
    ],
)
def test_windows_that_attention_is_not_told_forbid_packing(
    architecture: Any, changed: dict[str, Any]
) -> None:
    """Those models name them to their mask alone; the prompts tried are shorter than a window."""
    short = some_rows((3, 2), prefix=1)
    model = tiny_chat_model(architecture, sliding_window=6, **changed).model
    assert choose_packing(model, "auto", short) == "off"
    with pytest.raises(UserError, match="not told the sliding window"):
        choose_packing(model, "block_mask", short)
    beyond = tiny_chat_model(architecture, sliding_window=128, **changed).model
    assert choose_packing(beyond, "auto", short) == "grid", "no prompt can be so long"


def test_whatever_a_model_raises_over_packed_prompts_they_are_padded() -> None:
    model = tiny_chat_model("llama").model
    decoder = model.get_decoder()
    forward = decoder.forward

    def refuse(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        if position_ids is not None:
            raise IndexError
        return forward(*args, **kwargs)

    decoder.forward = refuse
    assert choose_packing(model, "auto", some_rows()) == "off"
    with pytest.raises(UserError, match=r"refuses packed prompts \(IndexError\)"):
        choose_packing(model, "grid", some_rows())


def test_rows_end_early_unless_a_mask_of_all_is_made_before_the_first_block() -> None:
    model = tiny_chat_model("llama").model
    assert all(rows_can_end(model, packing) for packing in ("off", "grid", "block_mask"))
    assert not rows_can_end(model, "native")
    model.config._attn_implementation = "flash_attention_2"
    assert rows_can_end(model, "native")


def test_a_decoder_that_is_named_after_the_whole_model() -> None:
    chunked = {"num_local_experts": 2, "intermediate_size_mlp": 64, "head_dim": 8}
    model = tiny_chat_model("llama4_text", **chunked).model  # type: ignore[arg-type]
    with torch.no_grad():
        one, _, _ = states_of(model, some_rows(), packing="off")
    assert one.shape == (5, 32)


def test_a_kernel_that_grids_do_not_go_with() -> None:
    model = tiny_chat_model("llama").model
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UserError, match="attention is flex_attention"):
        choose_packing(model, "grid", some_rows())


def test_dropout_is_seen_wherever_it_is() -> None:
    assert not has_dropout(tiny_chat_model("llama").model)
    assert has_dropout(tiny_chat_model("llama", attention_dropout=0.1).model)
    assert has_dropout(tiny_chat_model("gpt2", resid_pdrop=0.1).model)
    assert has_dropout(tiny_chat_model("mixtral", router_jitter_noise=0.1).model)
