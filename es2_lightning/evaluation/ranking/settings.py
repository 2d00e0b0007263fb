"""What a user sets about candidates and their ranking; light to import, so that config errors
answer at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from es2_lightning.ranges import at_least, more_than, one_of


@dataclass
class RankingSettings:
    """Which candidates are sampled, which lists they become, and what is read of them."""

    layer: int | None = None
    """Whose output is read, 1 … L, or negative from the end; null: a quarter of the depth."""
    response_token: str = field(default="last", metadata=one_of("last", "end_of_turn"))
    """Which token of a response: its text's last, or the special one that ends the turn."""
    temperature: float = field(default=1.5, metadata=more_than(0))
    """Of the samples."""
    train_prompts: int = field(default=150, metadata=at_least(1))
    """Harmful training prompts, drawn where there are more."""
    train_harmless: int = field(default=450, metadata=at_least(1))
    """Harmless ones, of each kind alike. A harmful prompt gives a list for each attack."""
    validation_prompts: int = field(default=40, metadata=at_least(1))
    validation_harmless: int = field(default=90, metadata=at_least(1))
    test_prompts: int = field(default=60, metadata=at_least(1))
    test_harmless: int = field(default=90, metadata=at_least(1))
    train_candidates: int = field(default=12, metadata=at_least(2))
    """Sampled for each training and validation prompt, under each attack."""
    test_candidates: int = field(default=32, metadata=at_least(1))
    """Sampled for each test prompt, under each attack: the largest m."""
    list_size: int = field(default=10, metadata=at_least(2))
    """Candidates of a composed list; of fewer where fewer were sampled."""
    margin: float | None = field(default=None, metadata=at_least(0))
    """What is returned: the first sample, unless another's score is higher by more than this. A
    further row of what the model gives; 0 leaves it out; null: chosen on validation prompts."""
    max_new_tokens: int | None = field(default=None, metadata=at_least(1))
    """Where a candidate is cut off; null: a little beyond the longest right answer among the
    prompts, 64 where none is known."""
    batch_size: int = field(default=64, metadata=at_least(1))
    """Rows per forward pass of sampling. Candidates are kept on disk after each so many."""
    batch_tokens: int = field(default=8192, metadata=at_least(1))
    """Tokens per forward pass of reading states, padding included."""
    prompt_sets: dict[str, list[str]] = field(default_factory=dict)
    """Of the cross-set table: by name, the sets of prompts that belong to it; empty: each set is
    one of its own. A prompt's set is its task; a file's lists are a set."""
