"""What one prompt is to a training step: its tokens, and where something is read of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenRow:
    """A prompt, alone or with its response, as tokens; on the host, without padding.

    Attributes:
        token_ids: All tokens.
        last_prompt_index: The position of the prompt's last token, where its state is read.
        output_positions: Where the next-token distribution is compared with the reference's,
            ascending; empty: nowhere.
    """

    token_ids: tuple[int, ...]
    last_prompt_index: int
    output_positions: tuple[int, ...] = ()

    @property
    def needed_length(self) -> int:
        """How many tokens matter: causal attention makes those behind irrelevant."""
        return max((self.last_prompt_index, *self.output_positions[-1:])) + 1
