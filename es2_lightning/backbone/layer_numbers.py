"""Layer numbers as a user gives them; light to import, so that config errors answer at once."""

from __future__ import annotations

from es2_lightning.errors import UserError


def resolve_layer(layer: int, depth: int, *, key: str = "layers") -> int:
    """A layer number as 0 … L. Negative ones count from the end.

    Args:
        layer: The number as the user gave it.
        depth: L, the number of blocks.
        key: The config key to name in the error.

    Raises:
        UserError: Out of range.
    """
    if not -depth <= layer <= depth:
        raise UserError(
            f"{key}: layer {layer} is out of range; the model has {depth} layers: accepted are "
            f"1 … {depth}, -1 … -{depth} from the end, and 0 for the input embeddings"
        )
    return layer + depth + 1 if layer < 0 else layer
