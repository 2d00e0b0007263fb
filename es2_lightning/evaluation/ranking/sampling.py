"""Candidates sampled from a model, batched, with a cache; kept on disk prompt by prompt.

A killed command goes on from the prompts that it had sampled: what a prompt's candidates are
depends on its text, its attack and the seed, not on what is sampled beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from es2_lightning.backbone.chat import words_of
from es2_lightning.backbone.chat_model import eval_mode
from es2_lightning.backbone.sampling import GumbelNoise, row_seed
from es2_lightning.backbone.shared_prefix import SharedPrefix
from es2_lightning.evaluation.attacks.attack import Attack, Attacked, Generation, Target
from es2_lightning.evaluation.parts import PartsFolder, code_digest, digest, identity
from es2_lightning.evaluation.ranking.sources import Question, ReadySource, opened
from es2_lightning.prompts.prompt import Prompt, PromptSplits

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel


@dataclass(frozen=True)
class Sampled:
    """A prompt's candidates as the model gave them, the first sample first.

    Attributes:
        question: What was asked.
        responses: With their prefixes.
    """

    question: Question
    responses: tuple[str, ...]


@dataclass(frozen=True)
class SampledModel:
    """A model that candidates are sampled from, and how.

    Attributes:
        label: Its name in files and progress.
        target: The model; its batch size is in rows.
        fingerprint: Of its weights.
        parts: Where candidates are kept.
        temperature: Above 0.
    """

    label: str
    target: Target
    fingerprint: str
    parts: PartsFolder
    temperature: float

    def sample(
        self,
        attack: Attack,
        prompts: Sequence[Prompt],
        *,
        name: str,
        settings: Mapping[str, Any],
        num_candidates: int,
        split: str,
    ) -> list[Sampled]:
        """Each prompt's candidates; those that were sampled before are read.

        Args:
            attack: What they are sampled under.
            prompts: The prompts themselves.
            name: The attack's.
            settings: Its config.
            num_candidates: For each prompt.
            split: What the prompts are for, for files' names and progress.

        Raises:
            NotPossible: The attack cannot be made on this model.
        """
        target = self.target
        part = self.parts.part(
            model=f"{self.label}-{split}",
            common=self._common(),
            attack=name,
            settings={
                **settings,
                "temperature": self.temperature,
                "num_candidates": num_candidates,
            },
        )
        missing = part.missing(prompts)
        stage = f"{self.label}: {split} candidates, {name}"
        with eval_mode(target.chat_model.model), opened(attack, target) as ready:
            if part.header is None:
                part.begin()
            at_once = max(1, target.batch_size // num_candidates)
            for start in range(0, len(missing), at_once):
                some = missing[start : start + at_once]
                made = sample_once(self, ready, some, num_candidates)
                part.append(some, [Attacked(tuple(map(Generation, texts))) for texts in made])
                done = len(prompts) - len(missing) + start + len(some)
                target.progress(stage, done, len(prompts))
            return [
                Sampled(
                    ready.question(prompt),
                    tuple(g.output for g in part.attacked[identity(prompt)].generations),
                )
                for prompt in prompts
            ]

    def _common(self) -> dict[str, Any]:
        """What all candidates depend on, beside their attack's settings."""
        chat_model = self.target.chat_model
        renderer = chat_model.renderer
        return {
            "weights": self.fingerprint,
            "code": code_digest(),
            "fitted_on": digest_of(self.target.splits),
            "rendering": digest([renderer.system_prompt, renderer.render("?")]),
            "max_new_tokens": self.target.max_new_tokens,
            "seed": self.target.seed,
            # From one seed they draw different samples.
            "kind of device": chat_model.device.type,
        }


def digest_of(splits: PromptSplits) -> str:
    """Of the prompts that attacks are fitted on."""
    fitted = (*splits.train.prompts, *splits.validation.prompts)
    return digest([asdict(prompt) for prompt in fitted])


def sample_once(
    model: SampledModel, ready: ReadySource, prompts: Sequence[Prompt], num_candidates: int
) -> list[tuple[str, ...]]:
    """Each prompt's candidates, in one batch, or in several where it has not as many rows."""
    target = model.target
    chat_model: ChatModel = target.chat_model
    questions = [ready.question(prompt) for prompt in prompts]
    prefix = SharedPrefix.of(
        chat_model, [q.asked for q in questions], prefixes=[q.prefix for q in questions]
    )
    rows = [(i, copy) for i in range(len(questions)) for copy in range(num_candidates)]
    texts: list[str] = []
    for start in range(0, len(rows), target.batch_size):
        some = rows[start : start + target.batch_size]
        seeds = [
            row_seed(target.seed, words_of(questions[i].asked), questions[i].prefix, copy)
            for i, copy in some
        ]
        with ready.around(len(some)):
            texts += prefix.generate(
                [i for i, _ in some],
                max_new_tokens=target.max_new_tokens,
                noise=GumbelNoise(seeds, model.temperature, chat_model.device),
            )[0]
    return [
        tuple(texts[i * num_candidates : (i + 1) * num_candidates]) for i in range(len(questions))
    ]
