"""State of parameters as a checkpoint holds it: whole, and by name, whatever they are sharded over.

So a run goes on with another number of devices, and under another strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from es2_lightning.backbone.ranks import Ranks


def optimizer_state_by_name(optimizer: Optimizer, module: nn.Module) -> dict[str, Any]:
    """An optimizer's state under the names of its parameters, on the CPU; collective.

    torch has it under their positions among those that the optimizer was given.

    Returns:
        On the first rank; on the others, no tensors are held.
    """
    names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
    first = Ranks.here().rank == 0
    return {
        "state": {
            names[parameter]: {key: _whole(value, keep=first) for key, value in state.items()}
            for parameter, state in optimizer.state.items()
        },
        "param_groups": [
            {**group, "params": [names[parameter] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ],
    }


def optimizer_state_by_position(state: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """The reverse, as `torch.optim.Optimizer.load_state_dict` takes it.

    Args:
        state: As `optimizer_state_by_name` gives it.
        module: Whose parameters the optimizer was given, in its order.
    """
    parameters = dict(module.named_parameters())
    numbers = {name: i for i, name in enumerate(parameters)}
    return {
        "state": {
            numbers[name]: {key: sharded_as(parameters[name], v) for key, v in values.items()}
            for name, values in state["state"].items()
        },
        "param_groups": [
            {**group, "params": sorted(numbers[name] for name in group["params"])}
            for group in state["param_groups"]
        ],
    }


def sharded_as(parameter: Tensor, value: Any) -> Any:
    """This rank's part of a value that belongs to a parameter: of one of its shape, its shard."""
    if not (isinstance(parameter, DTensor) and isinstance(value, Tensor)):
        return value
    if value.shape != parameter.shape:
        return value  # Such as the number of steps.
    there = distribute_tensor(
        value, parameter.device_mesh, parameter.placements, src_data_rank=None
    )
    # Offloaded shards are on the host, not on the mesh's devices.
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(there)


def _whole(value: Any, *, keep: bool) -> Any:
    if isinstance(value, DTensor):
        on_mesh = value.to(value.device_mesh.device_type)  # Offloaded shards are on the host.
        assert isinstance(on_mesh, DTensor)
        value = on_mesh.full_tensor()
    if not isinstance(value, Tensor):
        return value
    return value.detach().cpu() if keep else None
