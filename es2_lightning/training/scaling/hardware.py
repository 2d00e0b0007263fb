"""Devices and what connects them, as the prediction sees them. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from es2_lightning.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """So many equal devices in equal nodes; rates in one direction.

    Attributes:
        name: As tables show it.
        devices: All of them.
        per_node: Of each node.
        memory_gb: Of one device, 1e9 bytes.
        peak_tflops: Dense bf16 matrix products of one device, 1e12 FLOP/s.
        mfu: Share of the peak that a step's matrix products reach.
        memory_gb_s: What one device reads of its own memory, 1e9 bytes/s.
        link_gb_s: What one device sends to another one of its node.
        node_gb_s: What all devices of a node together send to another node. A ring crosses each
            border between nodes once in each of its channels, and NCCL lays a channel through each
            adapter, so a collective over many nodes moves at the rate of all adapters together.
        link_efficiency: Share of these two rates that a collective reaches.
        latency_us: Of one collective, microseconds, whatever its size.

    Raises:
        UserError: A value is out of range.
    """

    name: str
    devices: int
    per_node: int
    memory_gb: float
    peak_tflops: float
    mfu: float
    memory_gb_s: float
    link_gb_s: float
    node_gb_s: float
    link_efficiency: float
    latency_us: float

    def __post_init__(self) -> None:
        for key in ("memory_gb", "peak_tflops", "memory_gb_s", "link_gb_s", "node_gb_s"):
            if getattr(self, key) <= 0:
                raise UserError(f"{self._of(key)}: more than 0 is needed")
        for key in ("mfu", "link_efficiency"):
            if not 0 < getattr(self, key) <= 1:
                raise UserError(f"{self._of(key)}: more than 0 is needed, and at most 1")
        if self.latency_us < 0:
            raise UserError(f"{self._of('latency_us')}: at least 0 is needed")
        if self.devices < 1:
            raise UserError(f"{self._of('devices')}: at least 1 is needed")
        if self.per_node < 1 or (self.devices > self.per_node and self.devices % self.per_node):
            raise UserError(f"{self._of('per_node')}: {self.devices} devices need whole nodes")

    def _of(self, key: str) -> str:
        return f"benchmark.clusters.{self.name}.{key}={getattr(self, key)}"

    @property
    def bytes_per_second(self) -> float:
        """Bus bandwidth of a collective over all devices."""
        slowest = self.link_gb_s
        if self.devices > self.per_node:
            slowest = min(slowest, self.node_gb_s)
        return slowest * 1e9 * self.link_efficiency

    @property
    def flops_per_second(self) -> float:
        """Of one device, as a step reaches it."""
        return self.peak_tflops * 1e12 * self.mfu

    @property
    def memory_bytes(self) -> float:
        """Of one device."""
        return self.memory_gb * 1e9
