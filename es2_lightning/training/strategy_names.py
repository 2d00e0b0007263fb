"""Which strategies a trainer takes, by name; light to import, so that errors answer at once."""

from __future__ import annotations

from typing import Any

from es2_lightning.errors import UserError

SHARDED = {"fsdp": False, "fsdp_offload": True}
"""FSDP2; whether the shards stay in the host's memory."""
INSTEAD = {
    "deepspeed": "FSDP2 shards as ZeRO-3 does: trainer=fsdp, or trainer=fsdp_offload",
    "fsdp": "accepted are trainer=fsdp and trainer=fsdp_offload",
    "model_parallel": "that is what trainer=fsdp is made of",
    "ddp_spawn": "a spawned process cannot run the command: trainer=ddp",
    "ddp_fork": "a forked process cannot run the command: trainer=ddp",
    "ddp_notebook": "a command is no notebook: trainer=ddp",
    "xla": "TPUs are not supported: trainer=cpu, gpu, ddp or fsdp",
}


def check_strategy(name: Any) -> None:
    """Refuse a strategy that would not give the losses of one device.

    Raises:
        UserError: With what to type instead.
    """
    if name in ("auto", "ddp", *SHARDED) or (
        isinstance(name, str) and name.startswith("ddp_find_unused_parameters")
    ):
        return
    for word, instead in INSTEAD.items():
        if str(name).startswith(word):
            raise UserError(f"trainer.strategy={name}: {instead}.")
    raise UserError(
        f"trainer.strategy={name} is not accepted. Accepted: auto, ddp, {', '.join(SHARDED)}."
    )
