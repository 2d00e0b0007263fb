"""What batching and the key-value cache gain: SCAV against its plain form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from es2_lightning.backbone.paired_timing import TurnTimings, time_in_turns
from es2_lightning.errors import UserError
from es2_lightning.evaluation.attacks.scav import Scav, ScavRow, run_scav
from es2_lightning.evaluation.attacks.scav_plain import plain_scav
from es2_lightning.evaluation.attacks.scav_probes import fit_scav_probes
from es2_lightning.evaluation.progress import Progress, silent
from es2_lightning.prompts.prompt import PromptSplits

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark measured.

    Attributes:
        name: Its id.
        unit: Of the rates, such as `tokens per second`.
        fast: What is measured, in words.
        slow: What it is measured against.
        units: How many of them the work has.
        timings: Seconds of `fast` and `slow`.
        required: What the ratio should reach at least.
        equal: How many of the results were the same both ways.
        of: Of how many.
        threads: The CPU threads in use.
    """

    name: str
    unit: str
    fast: str
    slow: str
    units: int
    timings: TurnTimings
    required: float
    equal: int
    of: int
    threads: int

    @property
    def ratio(self) -> float:
        """How many times faster, the median of the rounds' ratios."""
        return self.timings.ratio("slow", "fast")

    @property
    def met(self) -> bool:
        """Whether the median ratio is what is required."""
        return self.ratio >= self.required

    def rates(self, way: str) -> list[float]:
        """Units per second, by round, of `fast` or `slow`."""
        return [self.units / seconds for seconds in self.timings.seconds(way)]


class ScavBenchmark:
    """SCAV on harmful test prompts: batched with a cache, against one row at a time without.

    Args:
        prompts: How many are attacked.
        max_new_tokens: Where a response is cut off.
        rounds: How often both ways are timed, in turns.
        required: What the ratio of the rates should reach at least.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self,
        *,
        prompts: int = 64,
        max_new_tokens: int = 24,
        rounds: int = 5,
        required: float = 10.0,
    ) -> None:
        for name, value in (
            ("prompts", prompts),
            ("max_new_tokens", max_new_tokens),
            ("rounds", rounds),
        ):
            if value < 1:
                raise UserError(f"{name}={value}: at least 1 is needed")
        self.prompts = prompts
        self.max_new_tokens = max_new_tokens
        self.rounds = rounds
        self.required = required

    def __call__(
        self, chat_model: ChatModel, splits: PromptSplits, *, progress: Progress = silent
    ) -> BenchmarkResult:
        """Fit probes, compare the outputs, time both ways.

        Raises:
            UserError: Too few harmful test prompts, or no layer's probe is good enough to attack.
        """
        texts = [p.text for p in splits.test.harmful][: self.prompts]
        if len(texts) < self.prompts:
            raise UserError(
                f"benchmark.prompts={self.prompts}: the test split has {len(texts)} harmful "
                f"prompts; accepted are 1 … {len(texts)}, or more prompts"
            )
        probes = fit_scav_probes(chat_model, splits)
        setting = Scav().setting(probes)
        if setting is None:
            raise UserError(
                "benchmark=scav: no layer's probe tells harmful prompts from harmless ones well "
                "enough to attack; accepted is a model that does, such as the organism"
            )
        rows = [ScavRow(text, setting) for text in texts]
        limit = self.max_new_tokens

        def batched() -> list[str]:
            outputs = run_scav(chat_model, probes, rows, max_new_tokens=limit, batch_size=len(rows))
            return [output.text for output in outputs]

        plain = []
        for row in rows:
            plain.append(plain_scav(chat_model, probes, row, max_new_tokens=limit))
            progress("comparing the outputs", len(plain), len(rows))
        equal = sum(a == b.text for a, b in zip(batched(), plain, strict=True))

        def one_by_one() -> list[object]:
            return [plain_scav(chat_model, probes, row, max_new_tokens=limit) for row in rows]

        timings = time_in_turns(
            {"fast": batched, "slow": one_by_one},
            rounds=self.rounds,
            after_each=lambda done, of: progress("both ways in turns", done, of),
        )
        return BenchmarkResult(
            name="scav",
            unit="tokens per second",
            fast=f"{len(rows)} prompts in one batch, with a key-value cache",
            slow="one prompt at a time, without a cache",
            units=sum(output.tokens for output in plain),
            timings=timings,
            required=self.required,
            equal=equal,
            of=len(rows),
            threads=torch.get_num_threads(),
        )
