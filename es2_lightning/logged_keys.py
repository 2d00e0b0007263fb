"""Every key that a run logs, with its unit: the one place where they are told.

`<l>` stands for a layer's number, 1 … L, `<k>` for a name. A step is an optimizer step; where it
accumulates several batches, its figures are its last batch's. Under several processes each figure
is of the whole batch. What a method does not compute is not logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

When = Literal["step", "epoch", "end"]


@dataclass(frozen=True)
class LoggedKey:
    """One key, or all of a form.

    Attributes:
        name: With `<l>` and `<k>` where names differ.
        meaning: What it is, and its unit.
        when: `step`: every `trainer.log_every_n_steps` steps; `epoch`: after each validation;
            `end`: once, when the models are measured.
        method: The one that logs it, where the others do not.
    """

    name: str
    meaning: str
    when: When = "step"
    method: str | None = None

    @property
    def pattern(self) -> str:
        """A regular expression of the whole key."""
        return re.escape(self.name).replace("<l>", r"\d+").replace("<k>", r"[^/]+")


_OF_EVERY_METHOD = (("loss", "what is minimised"),)
_OF_ES2 = (
    ("kl", "L_KL: KL(base ‖ tuned) on harmless prompts, nats a position"),
    ("harmful_kl", "KL(base ‖ tuned) on the base's own refusals, nats a position"),
    ("separation", "-L_dist: mean distance of harmful from harmless states over the stage's "
     "layers, in loss.distance_unit"),
    ("separation_relative", "the same distance over the mean norm of the batch's states"),
    ("layer_<l>/distance", "mean distance of a harmful from a harmless state"),
    ("layer_<l>/distance_relative", "the same over the mean norm"),
    ("layer_<l>/distance_within_harmful", "mean distance of two harmful states"),
    ("layer_<l>/distance_within_harmful_relative", "the same over the mean norm"),
    ("layer_<l>/distance_within_harmless", "mean distance of two harmless states"),
    ("layer_<l>/distance_within_harmless_relative", "the same over the mean norm"),
    ("layer_<l>/norm_harmful", "mean Euclidean norm of the harmful states"),
    ("layer_<l>/norm_harmless", "mean Euclidean norm of the harmless states"),
)  # fmt: skip
_OF_STL = (
    ("answer_loss", "cross-entropy of harmless prompts' responses, nats a token"),
    ("refusal_loss", "cross-entropy of harmful prompts' refusals, nats a token"),
)
_OF_CIRCUIT_BREAKERS = (
    ("rerouting", "cosine of harmful states to the base model's, where it is positive"),
    ("retention", "distance of harmless states from the base model's"),
)


def _of_a_batch(phase: str) -> list[LoggedKey]:
    when: When = "step" if phase == "train" else "epoch"
    by_method = {
        None: _OF_EVERY_METHOD,
        "es2": _OF_ES2,
        "stl": _OF_STL,
        "circuit_breakers": _OF_CIRCUIT_BREAKERS,
    }
    return [
        LoggedKey(f"{phase}/{name}", meaning, when, method)
        for method, keys in by_method.items()
        for name, meaning in keys
    ]


TOKENS_PER_SECOND = "train/tokens_per_second"
SAMPLES, GENERATIONS, RESULTS = "samples", "generations", "results"
PICTURES = "pictures"

KEYS: tuple[LoggedKey, ...] = (
    LoggedKey("epoch", "passes over the harmful training prompts that are complete"),
    *_of_a_batch("train"),
    LoggedKey("train/stage", "the running stage, from 0"),
    LoggedKey("train/kl_threshold", "τ of the running stage, nats a position", method="es2"),
    LoggedKey("train/gradient_norm", "of all gradients, before they are clipped"),
    LoggedKey("train/learning_rate", "of the first parameter group"),
    LoggedKey(TOKENS_PER_SECOND, "tokens of the step's prompts, of all processes, a second"),
    *_of_a_batch("validation"),
    LoggedKey(
        "validation/layer_<l>/probe_accuracy",
        "share of held-out validation prompts that a linear probe tells apart by their states",
        "epoch",
        "es2",
    ),
    LoggedKey("evaluation/<k>", "a headline figure of the tuned model, see sweep.csv", "end"),
    LoggedKey("evaluation/capability_lost", "1 - evaluation/capability_kept", "end"),
    LoggedKey(
        "evaluation/<k>/<k>/<k>",
        "of the base or tuned model, under an attack, a figure of results.csv",
        "end",
    ),
)
"""All metrics."""

TABLES = {
    SAMPLES: "what the model answers to a few fixed validation prompts, after each epoch",
    GENERATIONS: "every prompt, output and verdict of the evaluation",
    RESULTS: "every figure of the evaluation with its interval, base beside tuned",
}
"""W&B's tables."""

ARTIFACTS = {
    "adapter": "what was trained, in peft's format",
    "evaluation": "results.json, results.csv, generations.jsonl",
    "report": "the report, its tables and pictures, the config and metrics.csv",
}
"""W&B's artifacts by type; each is named `<type>-<the training run's id>`."""


def described(key: str) -> LoggedKey | None:
    """Which of `KEYS` a logged key is; None: it is none of ours."""
    return next((known for known in KEYS if re.fullmatch(known.pattern, key)), None)
