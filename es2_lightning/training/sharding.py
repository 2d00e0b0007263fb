"""FSDP2 through Lightning's ModelParallelStrategy: blocks are sharded, then what is around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.optim import Optimizer

from es2_lightning.backbone.structure import find_structure


class ShardedStrategy(ModelParallelStrategy):
    """Data parallel over all devices, every parameter sharded, checkpoints in one file.

    Args:
        offload: Keep the shards in the host's memory, and their optimizer with them.
    """

    def __init__(self, *, offload: bool = False, **words: Any) -> None:
        super().__init__(save_distributed_checkpoint=False, **words)
        self.offload = offload

    def setup_environment(self) -> None:
        """All devices share the data; none splits a tensor by itself."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def model_to_device(self) -> None:
        """Sharding put everything where it belongs; offloaded shards stay on the host."""
        if not self.offload:
            super().model_to_device()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Restored as under other strategies: the module hands over what is sharded already."""
        return True

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As under other strategies: the module itself cuts its shards from the file."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """This rank's shards of what trains."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """This rank's shards; they stay where their parameters are."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Nothing: the module writes it by name.

        torch's own way steps an optimizer that has no state yet, which then counts one step more.
        """
        return {}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What trains, assembled on rank 0: frozen weights are not gathered to be left out."""
        assert self.model is not None
        options = StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
        )
        return get_model_state_dict(self.model, options=options)


def shard(root: nn.Module, model: nn.Module, mesh: DeviceMesh, *, offload: bool) -> None:
    """Shard a model's blocks, each by itself, and then all that is left of `root`.

    From then on the model runs inside of `root`'s forward, or of `outside_of_root`, alone.

    Args:
        root: What holds the model, and is called.
        model: A causal LM, or a peft model around one.
        mesh: One dimension, the devices that share the data.
        offload: Keep the shards in the host's memory.
    """
    if isinstance(root, FSDPModule):
        return
    # Pinned memory is for a GPU's sake; without one there is nothing to offload from.
    pinned = CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu")
    policy = pinned if offload else OffloadPolicy()
    for block in find_structure(model).blocks:
        fully_shard(block, mesh=mesh, offload_policy=policy)
    fully_shard(root, mesh=mesh, offload_policy=policy)


@contextmanager
def outside_of_root(root: nn.Module) -> Iterator[None]:
    """Lets a sharded model run by itself: what only `root` holds is gathered meanwhile.

    Collective. `root` has run before, since the first that runs is taken for the root.
    """
    if not isinstance(root, FSDPModule):
        yield
        return
    root.unshard()
    try:
        yield
    finally:
        root.reshard()
