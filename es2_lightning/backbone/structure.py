"""Where a causal LM keeps its blocks, final norm and head, and how its layers are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from es2_lightning.backbone.settings import StructureSettings

_GIVEN = "es2_structure"
"""The attribute of a causal LM that holds the paths its user gave; its copies have it too."""


@dataclass(frozen=True)
class DecoderStructure:
    """The parts of a decoder-only causal LM.

    Attributes:
        blocks: Block l is `blocks[l - 1]`.
        final_norm: What stands between block L and the head.
        head: What makes logits of the final norm's output, before soft-capping or scaling.
        owner: The module whose child `blocks` is.
        name: The child's name.
    """

    blocks: nn.ModuleList
    final_norm: nn.Module
    head: nn.Module
    owner: nn.Module
    name: str


def num_layers(config: PretrainedConfig) -> int | None:
    """L, from a model's configuration alone; None where it does not say."""
    found = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    return None if found is None else int(found)


def causal_lm_of(model: nn.Module) -> Any:
    """The transformers causal LM: the model itself, or what a peft model is around."""
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(model, "get_base_model") else model


def decoder_of(model: nn.Module) -> Any:
    """What makes the final norm's output of tokens: a causal LM without its head."""
    causal_lm = causal_lm_of(model)
    decoder = causal_lm.get_decoder()
    # Llama 4's names itself.
    return find_structure(model).owner if decoder is causal_lm else decoder


def give_structure(model: nn.Module, paths: StructureSettings) -> None:
    """Make `find_structure` take these paths of the model instead of searching.

    Raises:
        UserError: A path leads nowhere, or `blocks` is no ModuleList.
    """
    setattr(causal_lm_of(model), _GIVEN, paths)
    find_structure(model)


def find_structure(model: nn.Module) -> DecoderStructure:
    """Find the parts by structure: a ModuleList of L blocks, and the norm that stands beside it.

    A model with several stacks of the same depth, such as a vision tower beside its decoder, has
    those of what transformers calls its decoder. Paths that a user gave come first.

    Args:
        model: A transformers causal LM, or a peft model around one.

    Raises:
        UserError: The model has another shape, or a given path leads nowhere.
    """
    causal_lm = causal_lm_of(model)
    given = getattr(causal_lm, _GIVEN, None)
    paths = {} if given is None else {k: v for k, v in vars(given).items() if v is not None}
    if not {"blocks", "final_norm"} <= paths.keys():
        owner, name, norm = _search(causal_lm, paths)
    if "blocks" in paths:
        blocks = _at(causal_lm, "blocks", paths["blocks"])
        parent, _, name = paths["blocks"].rpartition(".")
        owner = causal_lm.get_submodule(parent)
        if not isinstance(blocks, nn.ModuleList) or not len(blocks):
            raise UserError(
                f"model.structure.blocks={paths['blocks']} is a {type(blocks).__name__}; accepted "
                "is a ModuleList with a block for each layer"
            )
    if "final_norm" in paths:
        norm = _at(causal_lm, "final_norm", paths["final_norm"])
    if "head" in paths:
        head = _at(causal_lm, "head", paths["head"])
    else:
        head = causal_lm.get_output_embeddings()
        if head is None:
            raise UserError(
                f"{type(causal_lm).__name__} names no output embeddings: give their path, "
                "model.structure.head=<such as lm_head>"
            )
    return DecoderStructure(
        blocks=getattr(owner, name), final_norm=norm, head=head, owner=owner, name=name
    )


def _search(causal_lm: Any, paths: dict[str, str]) -> tuple[nn.Module, str, nn.Module]:
    """What owns the blocks, under which name, and the norm beside them."""
    depth = num_layers(causal_lm.config)
    decoder = causal_lm.get_decoder() if hasattr(causal_lm, "get_decoder") else causal_lm
    if "blocks" in paths:
        stack = _at(causal_lm, "blocks", paths["blocks"])
        depth = len(stack) if isinstance(stack, nn.ModuleList) else depth
    for module in (*decoder.modules(), *causal_lm.modules()):
        children = list(module.named_children())
        blocks = [name for name, m in children if isinstance(m, nn.ModuleList) and len(m) == depth]
        norms = [m for _, m in children if "norm" in type(m).__name__.lower()]
        if len(blocks) == 1 and norms:
            return module, blocks[0], norms[-1]
    raise UserError(
        f"{type(causal_lm).__name__}: no module holds {depth} blocks and a final norm; a "
        "decoder-only causal LM is needed. Where it keeps them can be said: "
        "model.structure.blocks=<path> model.structure.final_norm=<path>"
    )


def _at(causal_lm: nn.Module, part: str, path: str) -> nn.Module:
    try:
        return causal_lm.get_submodule(path)
    except AttributeError as error:
        near = ", ".join(name for name, _ in causal_lm.named_modules() if name.count(".") == 1)
        raise UserError(
            f"model.structure.{part}={path}: {type(causal_lm).__name__} has no such module; it "
            f"has {near[:300] or 'none two levels down'}"
        ) from error
