"""The ranker of SRR (arXiv 2505.15710, section 3): it scores responses by hidden states.

Shape legend: N lists, M responses of the longest list, D width of the model, H of the ranker;
G groups that attend within themselves, S tokens of a group.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from es2_lightning.backbone.ranker_shape import RankerShape
from es2_lightning.backbone.response_states import ListStates, StateReading
from es2_lightning.backbone.row_noise import RowNoise
from es2_lightning.errors import UserError


class Ranker(Protocol):
    """Anything that scores the responses of lists."""

    reading: StateReading
    """Where the states that it scores are read."""

    def scores(self, states: ListStates) -> Tensor:
        """(N, M), higher is better, -inf where a list is shorter; on the CPU, without gradient.

        Raises:
            UserError: The states were read elsewhere.
        """


def require_reading(states: ListStates, wanted: StateReading) -> None:
    """Refuse states that a ranker was not fitted for.

    Raises:
        UserError: They were read at another layer or token, or of a model of another size.
    """
    if states.reading != wanted:
        raise UserError(
            f"the ranker was fitted on states of {_worded(wanted)}; these are states of "
            f"{_worded(states.reading)}"
        )


def _worded(reading: StateReading) -> str:
    return (
        f"layer {reading.layer} of {reading.depth} with width {reading.width}, "
        f"response_token={reading.response_token}"
    )


class ResponseRanker(nn.Module):
    """A projection and one Transformer encoder layer over an instruction and its responses.

    There are no positions, so the order of a list changes no score; padding is masked. States are
    centred and scaled dimension by dimension before the projection, instructions and responses
    apart, as a few dimensions of a language model are far larger than all others.

    Args:
        reading: Where its states are read.
        shape: Sizes.
    """

    center_2D: Tensor
    scale_2D: Tensor

    def __init__(self, reading: StateReading, shape: RankerShape | None = None) -> None:
        super().__init__()
        self.reading = reading
        self.shape = shape = shape or RankerShape()
        self.register_buffer("center_2D", torch.zeros(2, reading.width))
        self.register_buffer("scale_2D", torch.ones(2, reading.width))
        self.projection = nn.Linear(reading.width, shape.hidden_size)
        self.role_2H = nn.Parameter(torch.randn(2, shape.hidden_size) * 0.02)
        self.layer = EncoderLayer(shape)

    def standardise_by(self, states: ListStates) -> None:
        """Centre and scale by these states' means and standard deviations."""
        groups = (states.instructions_ND, torch.cat(states.responses))
        with torch.no_grad():
            for row, group in enumerate(groups):
                deviations = group.double().std(0, correction=0)
                # A dimension that never changes says nothing, and stays at 0.
                deviations[deviations < 1e-6 * deviations.mean()] = 1.0
                self.center_2D[row] = group.double().mean(0)
                self.scale_2D[row] = deviations.clamp(min=1e-12)

    def forward(
        self,
        instructions_ND: Tensor,
        responses_NMD: Tensor,
        present_NM: Tensor,
        noise: RowNoise | None = None,
    ) -> Tensor:
        """Cosines over the temperature, (N, M), -inf where no response is present.

        Args:
            instructions_ND: Of each list.
            responses_NMD: Of each list, padded.
            present_NM: Bool, which responses are there.
            noise: What is dropped; None: dropout is off, in train mode too.
        """
        roles = zip(
            (instructions_ND[:, None], responses_NMD),
            *(self.center_2D, self.scale_2D, self.role_2H),
            strict=True,
        )
        instructions_N1H, responses_NMH = (
            self.projection((states - center) / scale) + role
            for states, center, scale, role in roles
        )
        if self.shape.context == "list":
            tokens_NGSH = torch.cat([instructions_N1H, responses_NMH], dim=1)[:, None]
            seen_NGS = F.pad(present_NM, (1, 0), value=True)[:, None]
        else:
            each_NMH = instructions_N1H.expand_as(responses_NMH)
            tokens_NGSH = torch.stack([each_NMH, responses_NMH], dim=2)
            seen_NGS = torch.ones(tokens_NGSH.shape[:3], dtype=torch.bool, device=present_NM.device)
        encoded_NGSH = self.layer(tokens_NGSH, seen_NGS, noise)
        cosines_NGS = F.cosine_similarity(encoded_NGSH[:, :, :1], encoded_NGSH[:, :, 1:], dim=-1)
        scores_NM = cosines_NGS.flatten(1) / self.shape.temperature
        return scores_NM.masked_fill(~present_NM, -math.inf)

    @torch.no_grad()
    def scores(self, states: ListStates) -> Tensor:
        """See `Ranker`."""
        require_reading(states, self.reading)
        responses_NMD, present_NM = states.padded()
        device = self.role_2H.device
        return self(
            states.instructions_ND.to(device), responses_NMD.to(device), present_NM.to(device)
        ).cpu()


class EncoderLayer(nn.Module):
    """A Transformer encoder layer as `nn.TransformerEncoderLayer` has it (norms behind the sums,
    ReLU), whose dropout takes its masks from a `RowNoise`."""

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.shape = shape
        self.query_key_value = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.up = nn.Linear(size, shape.feedforward_size)
        self.down = nn.Linear(shape.feedforward_size, size)
        self.attention_norm = nn.LayerNorm(size)
        self.feedforward_norm = nn.LayerNorm(size)

    def forward(self, tokens_NGSH: Tensor, seen_NGS: Tensor, noise: RowNoise | None) -> Tensor:
        """(N, G, S, H) → the same, each token attending to what is seen of its group."""
        attended = self._drop(self._attention(tokens_NGSH, seen_NGS, noise), noise)
        tokens_NGSH = self.attention_norm(tokens_NGSH + attended)
        raised = self._drop(F.relu(self.up(tokens_NGSH)), noise)
        return self.feedforward_norm(tokens_NGSH + self._drop(self.down(raised), noise))

    def _attention(self, tokens_NGSH: Tensor, seen_NGS: Tensor, noise: RowNoise | None) -> Tensor:
        num_heads = self.shape.num_heads
        heads = (*tokens_NGSH.shape[:-1], num_heads, self.shape.hidden_size // num_heads)
        query, key, value = (
            part.view(heads).transpose(2, 3)
            for part in self.query_key_value(tokens_NGSH).chunk(3, dim=-1)
        )
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = logits.masked_fill(~seen_NGS[:, :, None, None], -math.inf).softmax(-1)
        mixed = self._drop(weights, noise) @ value
        return self.output(mixed.transpose(2, 3).flatten(3))

    def _drop(self, values: Tensor, noise: RowNoise | None) -> Tensor:
        if noise is None or not self.training:
            return values
        return noise.dropout(values, self.shape.dropout)
