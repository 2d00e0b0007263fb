"""Starts the processes of a measured step and reads what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es2_lightning.training.cost.named_shapes import NAMED_SHAPES
from es2_lightning.training.cost.saved_tensors import FLOAT32
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape
from es2_lightning.training.scaling.benchmark import layer_of
from es2_lightning.training.scaling.communication import (
    Communication,
    batch_communication,
    weight_communication,
)
from es2_lightning.training.scaling.rank import RankWork
from es2_lightning.training.scaling.results import MeasuredRun

if TYPE_CHECKING:
    from es2_lightning.backbone.settings import ModelSettings
    from es2_lightning.training.scaling.benchmark import ScalingBenchmark
    from es2_lightning.training.scaling.communication import Strategy
    from es2_lightning.training.settings import StepSettings


def measure_processes(
    benchmark: ScalingBenchmark,
    settings: ModelSettings,
    *,
    shape: str,
    step: StepSettings,
    threads: int,
    strategy: Strategy,
    processes: int,
) -> MeasuredRun:
    """Steps of one strategy on so many processes, each with its share of the same batch.

    Raises:
        RuntimeError: They failed; with the end of what they printed.
    """
    work = RankWork(
        strategy=strategy,
        shape=asdict(NAMED_SHAPES[shape]),
        reference=settings.reference,
        hold=settings.reference_cache.hold,
        lora=asdict(settings.lora),
        step=asdict(step),
        harmless=benchmark.harmless,
        harmful=benchmark.harmful,
        layer=layer_of(NAMED_SHAPES[shape].num_layers),
        steps=benchmark.steps,
        threads=threads,
        seed=benchmark.seed,
    )
    found = _run(work, processes)
    return MeasuredRun(
        strategy=strategy,
        processes=processes,
        tokens=work.lengths.tokens,
        seconds=_slowest([of["seconds"] for of in found]),
        alone_seconds=_slowest([of["alone_seconds"] for of in found]),
        # Alone, a process hands its gradients to collectives that send nothing.
        counted=found[0]["bytes"] if processes > 1 else {},
        predicted=closed_form(work, settings, processes),
    )


def closed_form(work: RankWork, settings: ModelSettings, processes: int) -> dict[str, int]:
    """Bytes of each kind of collective in one step of this work."""
    model = ModelShape(**work.shape)
    share = work.share(0, processes)
    total: Communication = weight_communication(
        model,
        LoraShape(settings.lora.r, model.adapted(settings.lora.target_modules)),
        strategy=work.strategy,  # type: ignore[arg-type]
        devices=processes,
        weight_bytes=FLOAT32,
        reference_passes=0 if work.reference == "cached" else 1,
    ) + batch_communication(
        model, devices=processes, harmless=len(share.harmless), harmful=len(share.harmful)
    )
    kinds = ("all_gather", "reduce_scatter", "all_reduce", "broadcast")
    return {kind: getattr(total, kind) for kind in kinds if getattr(total, kind)}


def _run(work: RankWork, processes: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="es2_scaling_") as folder:
        what = Path(folder) / "what.json"
        what.write_text(json.dumps(asdict(work)))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *(f"--nproc-per-node={processes}", "-m", "es2_lightning.training.scaling.rank"),
                *(str(what), folder),
            ],
            env={**os.environ, "OMP_NUM_THREADS": str(work.threads), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(
                f"{work.strategy} on {processes} processes failed:\n{done.stderr[-3000:]}"
            )
        files = [Path(folder) / f"rank{rank}.json" for rank in range(processes)]
        return [json.loads(file.read_text()) for file in files]


def _slowest(seconds: list[list[float]]) -> tuple[float, ...]:
    return tuple(max(times) for times in zip(*seconds, strict=True))
