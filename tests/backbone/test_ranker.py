"""Rankers: their scores in NumPy, what must not change a score, and rankers on disk."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from es2_lightning.backbone.direction_rankers import fit_linear_probe, fit_mean_difference
from es2_lightning.backbone.labelled_lists import LabelledLists
from es2_lightning.backbone.ranker import ResponseRanker
from es2_lightning.backbone.ranker_folder import CONFIG, WEIGHTS, load_ranker, save_ranker
from es2_lightning.backbone.ranker_shape import CONTEXTS, Context, RankerShape
from es2_lightning.backbone.response_states import ListStates, StateReading
from es2_lightning.backbone.row_noise import RowNoise
from es2_lightning.errors import UserError

READING = StateReading(layer=2, response_token="last", depth=6, width=24)
SIZES = (5, 2, 8, 1)


def random_states(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> ListStates:
    generator = torch.Generator().manual_seed(seed)
    return ListStates(
        torch.randn(len(sizes), 24, generator=generator) * 3 + 1,
        tuple(torch.randn(size, 24, generator=generator) * 2 - 1 for size in sizes),
        READING,
    )


def random_ranker(context: Context = "list", num_heads: int = 2) -> ResponseRanker:
    torch.manual_seed(0)
    shape = RankerShape(
        hidden_size=8, num_heads=num_heads, feedforward_size=16, context=context, temperature=0.2
    )
    ranker = ResponseRanker(READING, shape)
    for parameter in ranker.parameters():
        nn.init.normal_(parameter, std=0.5)
    ranker.standardise_by(random_states((9, 9, 9), seed=1))
    return ranker.eval()


def in_numpy(ranker: ResponseRanker, instruction: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """One list's scores, from the weights alone."""
    w = {name: tensor.double().numpy() for name, tensor in ranker.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def encode(tokens: np.ndarray) -> np.ndarray:
        heads = ranker.shape.num_heads
        parts = np.split(linear(tokens, "layer.query_key_value"), 3, axis=-1)
        mixed = []
        for q, k, v in zip(*(np.split(part, heads, axis=-1) for part in parts), strict=True):
            logits = q @ k.T / math.sqrt(q.shape[-1])
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v)
        attended = linear(np.concatenate(mixed, axis=-1), "layer.output")
        tokens = norm(tokens + attended, "layer.attention_norm")
        raised = np.maximum(linear(tokens, "layer.up"), 0)
        return norm(tokens + linear(raised, "layer.down"), "layer.feedforward_norm")

    def token(states: np.ndarray, role: int) -> np.ndarray:
        states = (states - w["center_2D"][role]) / w["scale_2D"][role]
        return linear(states, "projection") + w["role_2H"][role]

    first, others = token(instruction[None], 0), token(responses, 1)
    if ranker.shape.context == "list":
        groups = [encode(np.concatenate([first, others]))]
    else:
        groups = [encode(np.stack([first[0], other])) for other in others]
    cosines = [
        (group[0] @ row) / (np.linalg.norm(group[0]) * np.linalg.norm(row))
        for group in groups
        for row in group[1:]
    ]
    return np.array(cosines) / ranker.shape.temperature


@pytest.mark.parametrize("context", CONTEXTS)
def test_scores_are_those_of_numpy(context: Context) -> None:
    """Lists of different lengths at once, padded, against one list at a time, unpadded."""
    ranker, states = random_ranker(context), random_states()
    scores = ranker.scores(states)
    assert scores.shape == (4, 8)
    for row, responses in enumerate(states.responses):
        expected = in_numpy(
            ranker, states.instructions_ND[row].double().numpy(), responses.double().numpy()
        )
        assert scores[row, : len(responses)].numpy() == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert (scores[row, len(responses) :] == -math.inf).all()
        assert np.abs(expected).max() <= 1 / 0.2


@pytest.mark.parametrize("context", CONTEXTS)
def test_neither_order_nor_padding_changes_a_score(context: Context) -> None:
    ranker, states = random_ranker(context), random_states()
    scores = ranker.scores(states)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    shuffled = ListStates(
        states.instructions_ND[2:3], (states.responses[2][order],), states.reading
    )
    torch.testing.assert_close(ranker.scores(shuffled)[0], scores[2, order], rtol=1e-5, atol=1e-5)
    alone = ranker.scores(states.lists([1]))
    assert alone.shape == (1, 2)
    torch.testing.assert_close(alone[0], scores[1, :2], rtol=1e-5, atol=1e-5)
    # What stands in the padding is not looked at either.
    responses, present = states.padded(12)
    responses[~present] = 1e4
    padded = ranker(states.instructions_ND, responses, present)
    torch.testing.assert_close(padded[:, :8], scores, rtol=1e-5, atol=1e-5)


def test_only_in_a_list_do_responses_see_each_other() -> None:
    states = random_states((3,))
    other = ListStates(
        states.instructions_ND,
        (torch.cat([states.responses[0][:2], torch.ones(1, 24)]),),
        READING,
    )
    for context, alike in (("response", True), ("list", False)):
        ranker = random_ranker(context)  # type: ignore[arg-type]
        before, after = ranker.scores(states)[0, :2], ranker.scores(other)[0, :2]
        assert torch.allclose(before, after, atol=1e-5) is alike


def test_the_encoder_layer_is_torchs() -> None:
    ranker = random_ranker()
    theirs = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    ours = ranker.layer.state_dict()
    names = {
        "self_attn.in_proj_": "query_key_value.",
        "self_attn.out_proj.": "output.",
        "linear1.": "up.",
        "linear2.": "down.",
        "norm1.": "attention_norm.",
        "norm2.": "feedforward_norm.",
    }
    theirs.load_state_dict(
        {a + k: ours[b + k] for a, b in names.items() for k in ("weight", "bias")}
    )
    tokens = torch.randn(3, 1, 6, 8)
    seen = torch.arange(6).expand(3, 1, 6) < torch.tensor([6, 4, 1])[:, None, None]
    with torch.no_grad():
        expected = theirs(tokens[:, 0], src_key_padding_mask=~seen[:, 0])
        found = ranker.layer(tokens, seen, None)[:, 0]
    torch.testing.assert_close(found[seen[:, 0]], expected[seen[:, 0]], rtol=1e-5, atol=1e-5)


def test_it_is_small_on_a_large_model() -> None:
    ranker = ResponseRanker(StateReading(8, "last", depth=32, width=4096))
    assert sum(p.numel() for p in ranker.parameters()) < 500_000


def test_dropout_is_that_of_the_whole_batch() -> None:
    values = torch.ones(6, 3, 50)
    whole = RowNoise(5, rows=range(6), total=6).dropout(values, 0.1)
    halves = [RowNoise(5, rows=range(k, 6, 2), total=6).dropout(values[k::2], 0.1) for k in (0, 1)]
    assert torch.equal(whole[0::2], halves[0]) and torch.equal(whole[1::2], halves[1])
    assert whole.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert float((whole == 0).float().mean()) == pytest.approx(0.1, abs=0.04)


def labelled() -> LabelledLists:
    states = random_states()
    labels = tuple(
        tuple(1.0 if response[0] > -1 else 0.0 for response in some) for some in states.responses
    )
    return LabelledLists(states, labels)


def test_directions_are_those_of_scikit_learn_and_numpy() -> None:
    lists = labelled()
    x = torch.cat(lists.states.responses).double().numpy()
    y = np.array([label for labels in lists.labels for label in labels])
    scale = math.sqrt((x**2).mean())
    model = LogisticRegression(max_iter=1000).fit(x / scale, y)
    probe, difference = fit_linear_probe(lists), fit_mean_difference(lists)
    direction = x[y == 1].mean(0) - x[y == 0].mean(0)
    middle = (x[y == 1].mean(0) + x[y == 0].mean(0)) / 2
    for ranker, expected in (
        (probe, model.decision_function(x / scale)),
        (difference, (x - middle) @ direction / np.linalg.norm(direction)),
    ):
        scores = ranker.scores(lists.states)
        assert scores[torch.isfinite(scores)].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert torch.isfinite(scores).sum() == sum(SIZES)


def test_a_saved_ranker_needs_no_lightning(tmp_path: Path) -> None:
    rankers = [random_ranker(), fit_linear_probe(labelled()), fit_mean_difference(labelled())]
    for number, ranker in enumerate(rankers):
        save_ranker(ranker, tmp_path / str(number), about={"model": "tiny"})  # type: ignore[arg-type]
        assert {p.name for p in (tmp_path / str(number)).iterdir()} == {WEIGHTS, CONFIG}
        loaded = load_ranker(tmp_path / str(number))
        assert loaded.reading == READING
        assert torch.equal(loaded.scores(random_states()), ranker.scores(random_states()))
    code = (
        "import sys; from es2_lightning.srr import load_ranker; "
        f"print(load_ranker({str(tmp_path / '0')!r}).shape.temperature, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0.2", "False"], done.stderr


def test_what_is_no_ranker_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ranker can be read from .*No such file"):
        load_ranker(tmp_path / "nothing")
    save_ranker(random_ranker(), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config["shape"]["hidden_size"] = 4
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match="no ranker can be read"):
        load_ranker(tmp_path)


def test_states_of_another_reading_are_refused() -> None:
    states = random_states()
    elsewhere = ListStates(
        states.instructions_ND, states.responses, StateReading(3, "last", depth=6, width=24)
    )
    for ranker in (random_ranker(), fit_mean_difference(labelled())):
        with pytest.raises(UserError, match=r"layer 2 of 6 .* these are states of layer 3 of 6"):
            ranker.scores(elsewhere)


@pytest.mark.parametrize(
    "labels", [((1.0,) * 5, (0.0,) * 2), ((1.0,) * 5, (0.0,), (1.0,) * 8, (0.0,))]
)
def test_labels_must_fit_their_responses(labels: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(UserError, match=r"accepted is a (row of labels|label) for each"):
        LabelledLists(random_states(), labels)


def test_one_kind_of_response_teaches_nothing() -> None:
    states = random_states()
    for label, missing in ((1.0, "bad"), (0.0, "good")):
        lists = LabelledLists(states, tuple((label,) * size for size in SIZES))
        with pytest.raises(UserError, match=f"no response of the 4 lists is {missing}"):
            fit_linear_probe(lists)
