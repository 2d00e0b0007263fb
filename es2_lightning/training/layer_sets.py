"""Which layers are separated: from the config and the model's depth, before weights load."""

from __future__ import annotations

from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.errors import UserError
from es2_lightning.training.settings import LayerSettings


def select_layers(settings: LayerSettings, depth: int) -> list[int] | None:
    """The layer set, shallow first.

    Args:
        settings: What the user chose.
        depth: L, from the model's configuration.

    Returns:
        Layer numbers 1 … L; None where the emergence layer is yet to be found by probes.

    Raises:
        UserError: A layer is out of range, doubled, or the set is empty.
    """
    match settings.select:
        case "list":
            if not settings.indices:
                raise UserError(
                    "layers.indices is empty: give layer numbers, "
                    f"such as layers=list layers.indices=[{max(1, depth // 3)},{depth}]"
                )
            chosen = [_checked(i, depth, "layers.indices") for i in settings.indices]
            if len(set(chosen)) < len(chosen):
                raise UserError(f"layers.indices={settings.indices} names a layer twice")
        case "single":
            chosen = [_checked(settings.index, depth, "layers.index")]
        case "all":
            chosen = list(range(1, depth + 1))
        case "every_nth":
            if settings.n > depth:
                raise UserError(f"layers.n={settings.n}: the model has {depth} layers")
            chosen = [*range(settings.n, depth + 1, settings.n), depth]
        case "depths":
            if not settings.depths or not all(0 < share <= 1 for share in settings.depths):
                raise UserError(
                    f"layers.depths={settings.depths} is not accepted. Accepted: shares of the "
                    "depth, each above 0 and at most 1, such as layers.depths=[0.3,0.6]"
                )
            chosen = [max(1, round(share * depth)) for share in settings.depths]
        case _:
            if settings.emergence is None:
                return None
            return with_terminal(_checked(settings.emergence, depth, "layers.emergence"), depth)
    return sorted(set(chosen))


def with_terminal(emergence: int, depth: int) -> list[int]:
    """The paper's layer set: the emergence layer and the terminal layer."""
    return sorted({emergence, depth})


def _checked(layer: int, depth: int, key: str) -> int:
    number = resolve_layer(layer, depth, key=key)
    if number == 0:
        raise UserError(
            f"{key}: layer 0 holds the input embeddings, which carry no prompt-level meaning at "
            f"the last token; accepted are 1 … {depth} and -1 … -{depth}"
        )
    return number
