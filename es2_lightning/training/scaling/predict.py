"""Memory and time of a step on a cluster, from counted FLOPs and bytes.

Memory of one device, n of them:

    ddp    weights + adapter + gradients + optimizer + activations + transient
    fsdp   (weights + adapter + gradients + optimizer) / n + root + 3 blocks
           + activations + transient

The adapter, its gradients and AdamW's two moments are float32. FSDP2 keeps the root's whole weights
(embeddings, final norm, head) during the step; of the blocks it holds the one that computes, and
the next one twice: as the all-gather left it, and cut into parameters. The transient part is the
head's chunk or a block's gradients (`cost/memory_estimate.py`). A tenth comes on top for the
allocator and kernels. The reference's cache is in the host's memory.

Time of a step:

    compute        max(FLOPs / (peak · MFU), passes over the weights · their bytes / memory rate)
    communication  bytes sent / (bandwidth · efficiency) + collectives · latency

The step takes between max(compute, communication), all of it hidden behind the other, and their
sum. FLOPs: `cost/step_flops.py`; bytes sent: `communication.py`. Not in it: the optimizer, whose
work on LoRA's weights is small, reading prompts, and launching kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.training.cost.memory_estimate import estimate_memory
from es2_lightning.training.cost.run_estimate import ON_TOP
from es2_lightning.training.cost.saved_tensors import Precision
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_flops import step_flops
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan
from es2_lightning.training.scaling.communication import (
    Communication,
    Strategy,
    batch_communication,
    block_bytes,
    root_bytes,
    weight_communication,
)
from es2_lightning.training.scaling.hardware import Cluster

BF16 = 2
BLOCKS_AT_ONCE = 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """What each device computes.

    Attributes:
        model: A name of `NAMED_SHAPES`.
        shape: Its shape; weights in bf16.
        rows: The prompts of one device's batch.
        plan: How its step is computed.
        lora: What trains.
        cached_positions: Of all harmless prompts of the run, where the reference is cached.
    """

    model: str
    shape: ModelShape
    rows: Sequence[RowShape]
    plan: StepPlan
    lora: LoraShape
    cached_positions: int


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes of one device, and of its host.

    Attributes:
        weights: Frozen ones, whole or this device's part.
        trained: The adapter, its gradients and its optimizer, whole or this device's part.
        unsharded: What FSDP2 has gathered, at the most.
        activations: What is kept for the backward pass.
        transient: What comes and goes beside it, the head's chunk above all.
        host_cache: The cached reference, in the host's memory; every device's process its own.
    """

    weights: int
    trained: int
    unsharded: int
    activations: int
    transient: int
    host_cache: int

    @property
    def total(self) -> int:
        """Of the device, with what allocators and kernels take."""
        parts = self.weights + self.trained + self.unsharded + self.activations + self.transient
        return int(ON_TOP * parts)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A step of one model, strategy and cluster.

    Attributes:
        cluster: The devices.
        model: The shape's name.
        strategy: `ddp` or `fsdp`.
        memory: Of one device.
        flops: Of one device.
        compute_seconds: Without communication.
        communication: Payloads.
        communication_seconds: If nothing else runs.
        tokens: Of the batch of all devices.
    """

    cluster: Cluster
    model: str
    strategy: Strategy
    memory: DeviceMemory
    flops: int
    compute_seconds: float
    communication: Communication
    communication_seconds: float
    tokens: int

    @property
    def fits(self) -> bool:
        """Whether the device's memory will do."""
        return self.memory.total <= self.cluster.memory_bytes

    @property
    def least_seconds(self) -> float:
        """Communication behind compute, or compute behind communication."""
        return max(self.compute_seconds, self.communication_seconds)

    @property
    def most_seconds(self) -> float:
        """One after the other."""
        return self.compute_seconds + self.communication_seconds


def predict(job: Job, cluster: Cluster, strategy: Strategy) -> Prediction:
    """A step of this job on a cluster."""
    devices = cluster.devices
    reference_passes = 0 if job.plan.reference == "cached" else 1
    flops = step_flops(job.shape, job.rows, job.plan, job.lora).total
    read = (2 + reference_passes) * job.shape.active_parameters * BF16
    sent = weight_communication(
        job.shape,
        job.lora,
        strategy=strategy,
        devices=devices,
        weight_bytes=BF16,
        reference_passes=reference_passes,
    ) + batch_communication(
        job.shape,
        devices=devices,
        harmless=sum(row.outputs > 0 for row in job.rows),
        harmful=sum(row.outputs == 0 for row in job.rows),
    )
    return Prediction(
        cluster=cluster,
        model=job.model,
        strategy=strategy,
        memory=device_memory(job, strategy, devices=devices),
        flops=flops,
        compute_seconds=max(flops / cluster.flops_per_second, read / (cluster.memory_gb_s * 1e9)),
        communication=sent,
        communication_seconds=sent.sent(devices) / cluster.bytes_per_second
        + sent.collectives * cluster.latency_us * 1e-6,
        tokens=devices * sum(row.tokens for row in job.rows),
    )


def device_memory(job: Job, strategy: Strategy, *, devices: int) -> DeviceMemory:
    """Of one of so many devices."""
    whole = estimate_memory(
        job.shape,
        job.rows,
        job.plan,
        job.lora,
        precision=Precision(weight=BF16, activation=BF16, device="cuda"),
        cached_positions=job.cached_positions,
    )
    trained = whole.adapter + whole.gradients + whole.optimizer
    parts, unsharded = 1, 0
    if strategy == "fsdp" and devices > 1:
        parts = devices
        unsharded = root_bytes(
            job.shape, devices=devices, weight_bytes=BF16
        ) + BLOCKS_AT_ONCE * block_bytes(job.shape, job.lora, devices=devices, weight_bytes=BF16)
    return DeviceMemory(
        weights=(whole.weights + whole.reference) // parts,
        trained=trained // parts,
        unsharded=unsharded,
        activations=whole.activations,
        transient=whole.transient,
        host_cache=whole.host_cache,
    )
