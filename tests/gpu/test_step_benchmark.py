"""The step's benchmark on a GPU: throughput, utilisation and peak memory beside the rest.

python -m pytest -m gpu -s tests/gpu
"""

from __future__ import annotations

import json

import pytest
import torch

from ..benchmark.conftest import Benchmark, benchmark  # noqa: F401

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("layer", [10, 32])
def test_llama_3_8b(
    benchmark: Benchmark,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    layer: int,
) -> None:
    """Two copies in bf16 are 32 GB: the naive step needs a card of 80."""
    if torch.cuda.get_device_properties(0).total_memory < 70e9:
        pytest.skip("needs 80 GB of GPU memory")
    shape = ("model.shape=llama3_8b", "model.dtype=bfloat16", f"benchmark.layer={layer}")
    folder = benchmark(*shape, "device=cuda", "benchmark.options=[]")
    found = json.loads((folder / "benchmark.json").read_text())
    ways = found["ways"]
    assert ways["g"]["peak_bytes"] < ways["set"]["peak_bytes"] < ways["naive"]["peak_bytes"]
    assert ways["set"]["wall_saved"] > 1.5
    # bf16 rounds two correct programs apart; float32 is held to 1e-6 elsewhere.
    assert ways["set"]["gradient_error"] < 0.2
    with capsys.disabled():
        print("\n" + capsys.readouterr().out)
