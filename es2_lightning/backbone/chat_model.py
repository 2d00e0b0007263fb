"""A chat model: the causal LM, its tokenizer, and how prompts are rendered for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from es2_lightning.backbone.chat import ChatRenderer
from es2_lightning.backbone.load_errors import explaining_load_errors
from es2_lightning.backbone.progress_bars import no_bars_in_files
from es2_lightning.backbone.structure import find_structure
from es2_lightning.hub_access import only_local

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@dataclass
class ChatModel:
    """A causal LM that answers prompts.

    Attributes:
        model: A transformers causal LM, or a peft model around one.
        tokenizer: Its tokenizer, with a padding token.
        renderer: How prompts become tokens.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    renderer: ChatRenderer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def num_layers(self) -> int:
        """L, the number of blocks."""
        return len(find_structure(self.model).blocks)

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        use_safetensors: bool = True,
        quantization_config: Any = None,
        max_length: int = 512,
        system_prompt: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        template_date: str | None = None,
    ) -> ChatModel:
        """Load from the Hub or a local folder, in eval mode.

        Args:
            name_or_path: A Hub id, or a folder in the Hub's layout.
            revision: A commit of the Hub's repository; None: its newest.
            dtype: Of the weights.
            attn_implementation: transformers' name for it; None: its choice.
            trust_remote_code: Whether code from the repository is run.
            use_safetensors: False reads pickled weights, which can run code.
            quantization_config: transformers' own, such as a `BitsAndBytesConfig`.
            max_length: See `ChatRenderer`, as for those that follow.
            system_prompt: Put before every prompt.
            chat_template_kwargs: Handed to the chat template.
            template_date: What the template takes for today.

        Raises:
            UserError: The model is missing, gated, or has no safetensors weights.
        """
        from transformers import AutoModelForCausalLM

        no_bars_in_files()
        renderer = load_renderer(
            name_or_path,
            revision=revision,
            trust_remote_code=trust_remote_code,
            max_length=max_length,
            system_prompt=system_prompt,
            chat_template_kwargs=chat_template_kwargs,
            template_date=template_date,
        )
        # Only where it is given: transformers asks whether the argument is there, not what it is.
        quantized = {"quantization_config": quantization_config} if quantization_config else {}
        with explaining_load_errors(name_or_path):
            model = AutoModelForCausalLM.from_pretrained(
                name_or_path,
                revision=revision,
                trust_remote_code=trust_remote_code,
                local_files_only=only_local(name_or_path),
                dtype=getattr(torch, dtype),
                attn_implementation=attn_implementation,
                use_safetensors=use_safetensors,
                **quantized,
            )
        return cls(model=model.eval(), tokenizer=renderer.tokenizer, renderer=renderer)


def load_renderer(
    name_or_path: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int = 512,
    system_prompt: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    template_date: str | None = None,
) -> ChatRenderer:
    """How prompts become a model's tokens, without its weights; the arguments of `ChatModel.load`.

    Raises:
        UserError: The model is missing or gated, or has no tokenizer.
    """
    from transformers import AutoTokenizer

    with explaining_load_errors(name_or_path):
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_path,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=only_local(name_or_path),
        )
    if tokenizer.pad_token_id is None:
        # Padding is told from the mask, never from the ids, so the token itself is free.
        tokenizer.pad_token = tokenizer.eos_token
    return ChatRenderer(
        tokenizer,
        max_length=max_length,
        system_prompt=system_prompt,
        chat_template_kwargs=chat_template_kwargs,
        template_date=template_date,
    )


def load_config(
    name_or_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PretrainedConfig:
    """A model's configuration, without its weights.

    Raises:
        UserError: The model is missing or gated.
    """
    from transformers import AutoConfig

    with explaining_load_errors(name_or_path):
        return AutoConfig.from_pretrained(
            name_or_path,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=only_local(name_or_path),
        )


@contextmanager
def frozen_weights(model: nn.Module) -> Iterator[None]:
    """No weight takes gradients inside the `with`; afterwards each takes them as it did before."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the `with`; afterwards every module is back in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
