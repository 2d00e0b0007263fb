"""LoRA through peft."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from es2_lightning.backbone.adapter_folder import WEIGHTS, check_adapter_folder
from es2_lightning.backbone.structure import find_structure
from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

log = logging.getLogger(__name__)

BASE_WEIGHT = ".base_layer.weight"


def add_lora(
    model: nn.Module,
    *,
    r: int = 8,
    lora_alpha: int = 16,
    lora_dropout: float = 0.05,
    target_modules: str | Sequence[str] = "all-linear",
    use_dora: bool = False,
) -> PeftModel:
    """Wrap a causal LM with a fresh LoRA adapter; only the adapter is trainable.

    Args:
        model: A transformers causal LM.
        r: Rank.
        lora_alpha: Scaling; the update is multiplied by lora_alpha / r.
        lora_dropout: Dropout on the adapter's input, in train mode.
        target_modules: peft's own words: module names, a pattern, or `all-linear`.
        use_dora: Also train the magnitudes of the weights' columns (DoRA, arXiv 2402.09353).

    Raises:
        UserError: No module has a name that `target_modules` gives.
    """
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    head = find_structure(model).head
    names = sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, m in model.named_modules()
            # GPT-2's linear modules are of a kind of their own.
            if type(m) in (nn.Linear, Conv1D) and m is not head
        }
    )
    if leaves_experts_out(
        model, target_modules=targets, lora_dropout=lora_dropout, use_dora=use_dora
    ):
        targets = _linear_beside_experts(model)
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=targets,
        use_dora=use_dora,
        task_type="CAUSAL_LM",
    )
    try:
        with between_libraries():
            # peft's own modules come in train mode, dropout active, whatever mode the model is in.
            return get_peft_model(model, config).train(model.training)
    except ValueError as error:
        remedy = f"accepted are all-linear, or some of: {', '.join(names)}"
        if "ParamWrapper" in str(error):
            remedy = (
                "the experts of a mixture of experts are adapted without dropout and without "
                "DoRA only: model.lora.lora_dropout=0 and model.mode=lora, or name attention's "
                "projections alone"
            )
        raise UserError(
            f"model.lora.target_modules={targets}: {str(error).splitlines()[0]}\n{remedy}"
        ) from error


def leaves_experts_out(
    model: nn.Module, *, target_modules: str | Sequence[str], lora_dropout: float, use_dora: bool
) -> bool:
    """Whether `all-linear` covers attention alone: of a mixture of experts, with dropout or DoRA.

    The weights of its experts are no linear modules. peft takes them for some all the same, and
    then refuses dropout and DoRA on them.
    """
    constrained = lora_dropout > 0 or use_dora
    return target_modules == "all-linear" and constrained and bool(_experts(model))


def _experts(model: nn.Module) -> list[str]:
    """The modules that hold the weights of several experts in one tensor."""
    return [
        name
        for name, module in model.named_modules()
        if any(p.dim() == 3 for p in module.parameters(recurse=False))
        and "expert" in type(module).__name__.lower()
    ]


def _linear_beside_experts(model: nn.Module) -> list[str]:
    """The last names of the linear modules in those parts of the blocks that hold no experts."""
    blocks = find_structure(model).blocks
    # "3.mlp.experts" is a part of mlp, in whichever block it is.
    parts = {name.split(".")[1] for name in _experts(blocks)}
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in blocks.named_modules()
            if isinstance(module, nn.Linear) and name.split(".")[1] not in parts
        }
    )


@contextmanager
def between_libraries() -> Iterator[None]:
    """Without what peft and transformers warn each other of: a name that one of them changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The base model inside the `with`: the adapter is disabled.

    peft's `disable_adapter()` switches `requires_grad` back on for every adapter tensor when it
    exits (peft #3447), frozen ones too; here each keeps what it had.
    """
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


def adapter_is_on(model: nn.Module) -> bool:
    """Whether a forward pass goes through the adapter now."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    return bool(layers) and not any(layer.disable_adapters for layer in layers)


def save_adapter(
    model: PeftModel, folder: Path, *, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter as peft itself does, loadable with `PeftModel.from_pretrained`.

    Args:
        model: A peft model.
        folder: Where to.
        weights: Its trainable weights by name, where the model's own are shards; None: its own.
    """
    given: dict[str, Any] = {} if weights is None else {"state_dict": weights}
    model.save_pretrained(str(folder), safe_serialization=True, **given)


def load_adapter(chat_model: ChatModel, folder: Path) -> None:
    """Put a saved adapter onto a base model: frozen, switched on, in eval mode.

    `chat_model.model` becomes a peft model around the base model. Where this fails, it is the base
    model as it was.

    Args:
        chat_model: The base model, without an adapter.
        folder: In peft's format, as `save_adapter` writes it.

    Raises:
        UserError: There is no adapter in the folder, it cannot be read, or it does not fit the base
            model: other modules, other shapes, weights missing or left over.
    """
    check_adapter_folder(folder)
    base = chat_model.model
    assert not isinstance(base, PeftModel), "the base model has an adapter already"
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"adapter={folder} cannot be read: {_first_line(error)}") from error
    trained_on = str(config.base_model_name_or_path or "")
    if config.peft_type is None or config.is_prompt_learning:
        raise UserError(
            f"adapter={folder}: its peft_type is {getattr(config.peft_type, 'value', None)}; "
            "accepted are adapters on the model's modules, such as LORA"
        )
    # As peft itself names the base; it warns where they differ, and what is said below says more.
    config.base_model_name_or_path = base.__dict__.get("name_or_path")
    config.inference_mode = True
    flags = [(p, p.requires_grad) for p in base.parameters()]
    fitted: PeftModel | None = None
    try:
        with between_libraries():
            fitted = get_peft_model(base, config)
        _fill(fitted, weights)
    except (ValueError, RuntimeError, KeyError) as error:
        if fitted is not None:
            fitted.unload()
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
        raise UserError(
            f"adapter={folder} does not fit the base model {_name(base)}: {_first_line(error)}\n"
            f"It was trained on {trained_on or 'a model that it does not name'}; accepted is that "
            "one: model.name_or_path=<its name or folder>"
        ) from error
    if trained_on and Path(trained_on).name != Path(_name(base)).name:
        log.warning(
            "The adapter %s was trained on %s and is put onto %s: its shapes fit; whether its "
            "weights do is not known",
            *(folder, trained_on, _name(base)),
        )
    chat_model.model = fitted.eval()


def _fill(model: PeftModel, weights: dict[str, torch.Tensor]) -> None:
    """Load the adapter's weights, all of them and no others."""
    # Without embedding layers: to decide about them, peft asks the Hub.
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = _without_the_bases_own(model, weights)
    _refuse("weights for modules that the base model does not have", weights, expected)
    _refuse("no weights for some modules", expected, weights)
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise ValueError(
                f"{name} has the shape {list(weight.shape)}, and {list(expected[name].shape)} fits"
            )
    set_peft_model_state_dict(model, weights)


def _without_the_bases_own(
    model: PeftModel, weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Of an adapter on head or embeddings, peft saves the weight that it is added to, too."""
    of_model = dict(model.named_parameters(remove_duplicate=False))  # A tied head, too.
    kept = {}
    for name, weight in weights.items():
        own = of_model.get(name) if name.endswith(BASE_WEIGHT) else None
        if own is None:
            kept[name] = weight
        elif not torch.equal(weight.to(own), own):
            raise ValueError(f"it was trained beside another {name.removesuffix(BASE_WEIGHT)}")
    return kept


def _refuse(words: str, some: Iterable[str], others: Iterable[str]) -> None:
    if lacking := sorted(set(some) - set(others)):
        raise ValueError(f"it has {words}: {len(lacking)} such as {lacking[0]}")


def _name(model: Any) -> str:
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
