"""Measures one model: attacks, harmless prompts, separability; a killed measurement goes on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es2_lightning.backbone.chat_model import eval_mode
from es2_lightning.backbone.hidden_states import last_token_states
from es2_lightning.evaluation.attacking import DIRECT, attack_all, respond_directly
from es2_lightning.evaluation.attacks.attack import Attack, Target
from es2_lightning.evaluation.attacks.scav_probes import contrast, fit_scav_probes
from es2_lightning.evaluation.capability.capability import (
    Capability,
    CapabilityFigure,
    Examinee,
)
from es2_lightning.evaluation.coherence import Coherence
from es2_lightning.evaluation.drawn_prompts import DrawnPrompts
from es2_lightning.evaluation.drift import kl_to_reference
from es2_lightning.evaluation.judges.attackers_judge import AttackersJudge, needs_coherence
from es2_lightning.evaluation.judges.judge import Judge
from es2_lightning.evaluation.judges.panel import JudgePanel
from es2_lightning.evaluation.judging import exchanges_of, judge_all
from es2_lightning.evaluation.measurement import AttackMeasurement, Measurement
from es2_lightning.evaluation.parts import PartsFolder, code_digest, digest
from es2_lightning.evaluation.progress import Progress, silent
from es2_lightning.evaluation.separability import project, separability
from es2_lightning.evaluation.settings import EvaluateSettings
from es2_lightning.evaluation.subject import Subject, base_of
from es2_lightning.evaluation.unknown_words import words_of
from es2_lightning.prompts.prompt import Kind, PromptSet, PromptSplits

if TYPE_CHECKING:
    from torch import Tensor

    from es2_lightning.backbone.chat_model import ChatModel


NOTES = ("_from_model_config", "transformers_version")
"""What stands in a generation config and changes no response."""


class Evaluator:
    """What is measured, and how thoroughly.

    Args:
        attacks: By name; `direct` is always among what is measured.
        attack_settings: Each attack's config, by which what was measured before is known again.
        judges: Who tells what became of each output.
        splits: Attacks are fitted on training prompts, chosen by validation prompts, and run on
            test prompts.
        settings: Sizes.
        folder: The evaluation's folder; what is measured is kept in `parts/` in it.
        earlier: Folders of other evaluations; what they hold on the same terms is taken over.
        capability: What the model can still do; None: not measured.
        capability_settings: Its config.
        seed: Fixes which prompts are drawn where there are more.
        progress: Told how far each stage is.

    Raises:
        UserError: A split lacks harmful or harmless prompts.
    """

    def __init__(
        self,
        *,
        attacks: Mapping[str, Attack],
        attack_settings: Mapping[str, Mapping[str, Any]],
        judges: JudgePanel,
        splits: PromptSplits,
        settings: EvaluateSettings,
        folder: Path,
        capability: Capability | None = None,
        capability_settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: Progress = silent,
        earlier: Sequence[Path] = (),
    ) -> None:
        self.drawn = DrawnPrompts.of(splits, settings, seed=seed)
        self.attacks = attacks
        self.attack_settings = attack_settings
        self.judges = judges
        self.settings = settings
        self.coherence = Coherence(batch_size=min(settings.batch_size, 64), seed=seed)
        self.seed = seed
        self.progress = progress
        self.folder = folder
        self.parts = PartsFolder(folder / "parts", earlier=[other / "parts" for other in earlier])
        self._base_fingerprint = ""
        self._made_of_base: Mapping[str, AttackMeasurement] = {}
        self.capability = capability
        self.capability_settings = dict(capability_settings or {})

    def measure(
        self, subject: Subject, *, projection_layers: Sequence[int] | None = None
    ) -> Measurement:
        """Measure one model; weights, modes and hooks are left as they were.

        Args:
            subject: The model.
            projection_layers: Layers 1 … L whose states are projected; all by default.

        Raises:
            UserError: A judge cannot work, or an attack's value is wrong. What was measured is
                kept.
            ValueError: A tuned model is measured before its base, on which what counts as
                incoherent is calibrated.
        """
        if subject.reference is not None and self.coherence.limits is None:
            raise ValueError("the base is measured first: it calibrates what is incoherent")
        if subject.reference is None:
            self._base_fingerprint = subject.fingerprint
        chat_model = subject.chat_model
        tokens = self.settings.max_new_tokens or self.drawn.response_limit(chat_model.renderer)
        target = Target(
            chat_model=chat_model,
            splits=self.drawn.splits,
            judge=self.judges.attacker,
            max_new_tokens=tokens,
            reference=subject.reference,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            progress=lambda stage, done, of: self.progress(f"{subject.label}: {stage}", done, of),
        )
        common = self._common(subject, tokens)
        with eval_mode(chat_model.model):
            direct = respond_directly(
                target, self.drawn.tested, self.parts, label=subject.label, common=common
            )
            if subject.reference is None:
                self._calibrate(direct, chat_model)
            attacked = attack_all(
                replace(target, judge=self._attackers_judge(subject)),
                self.drawn.tested["harmful"],
                self.attacks,
                self.attack_settings,
                self.parts,
                label=subject.label,
                common=common | self._attackers_terms(),
                like=None if subject.reference is None else self._made_of_base,
            )
            harmful, harmless = self._states(chat_model)
            probes = fit_scav_probes(chat_model, self.drawn.splits, seed=self.seed)
            kl = {} if subject.reference is None else self._kl_to_base(chat_model, subject)
        if subject.reference is None:
            self._made_of_base = attacked
        judged = self._judge(direct | attacked, subject, target.progress)
        by_kind = {kind: judged.pop(f"{DIRECT}/{kind}") for kind in self.drawn.tested}
        layers = range(1, chat_model.num_layers + 1)
        capability = self._capability(subject, by_kind, common, target.progress)
        return Measurement(
            model=subject.label,
            judges=self.judges.hashes,
            direct=by_kind,
            attacks={DIRECT: by_kind["harmful"], **judged},
            separability=separability(harmful, harmless, probes),
            projections=project(harmful, harmless, projection_layers or layers),
            kl_to_base=kl,
            capability=capability,
            generation={
                "decoding": "greedy unless an attack says otherwise",
                **common,
                "coherence": asdict(self.coherence.limits) if self.coherence.limits else None,
            },
        )

    def _attackers_judge(self, subject: Subject) -> Judge:
        judge = self.judges.attacker
        if not needs_coherence(judge):
            return judge
        return AttackersJudge(judge, self.coherence, partial(base_of, subject))

    def _attackers_terms(self) -> dict[str, Any]:
        """What attacks' results depend on where their judge is told how outputs read."""
        limits = self.coherence.limits
        if limits is None or not needs_coherence(self.judges.attacker):
            return {}
        # Rounded: perplexities differ in their last digits with the batch that they are read in.
        return {"coherence": {name: f"{value:.3g}" for name, value in asdict(limits).items()}}

    def _judge(
        self, measured: dict[str, AttackMeasurement], subject: Subject, progress: Progress
    ) -> dict[str, AttackMeasurement]:
        with base_of(subject) as base:
            return judge_all(measured, self.judges, self.coherence, base, progress=progress)

    def _capability(
        self,
        subject: Subject,
        direct: Mapping[Kind, AttackMeasurement],
        common: Mapping[str, Any],
        progress: Progress,
    ) -> list[CapabilityFigure]:
        if self.capability is None:
            return []
        judge = self.judges.headline
        answers = [
            pair
            for kind, made in direct.items()
            if kind != "harmful"
            for pair in zip(made.prompts, made.outcomes(judge), strict=True)
        ]
        examinee = Examinee(
            chat_model=subject.chat_model,
            folder=self.folder / "capability" / subject.label,
            reference=subject.reference,
            answers=answers,
            progress=progress,
        )
        measure = partial(self.capability, examinee)
        # Not the judge, nor the prompts: hours of lm-eval stay, whatever else is asked for.
        key = {
            "model": {name: common[name] for name in ("weights", "rendering", "generation_config")},
            "settings": self.capability_settings,
            "depends_on": self.capability.depends_on(examinee),
        }
        with eval_mode(subject.chat_model.model):
            return self.parts.capability(model=subject.label, key=key, measure=measure)

    def _calibrate(self, direct: Mapping[str, AttackMeasurement], base: ChatModel) -> None:
        """What no language is, by what the base model says without an attack."""
        said = exchanges_of(direct)
        known = [
            text
            for split in (
                self.drawn.splits.train,
                self.drawn.splits.validation,
                self.drawn.splits.test,
            )
            for prompt in split.prompts
            for text in (prompt.conversation, prompt.response or "")
        ]
        self.coherence.calibrate(
            base,
            [exchange.prompt for exchange in said],
            [exchange.output for exchange in said],
            vocabulary=words_of(known),
        )

    def _states(self, chat_model: ChatModel) -> list[Tensor]:
        """Last-token states of as many harmful as harmless test prompts, (N, L, D) each."""
        layers = range(1, chat_model.num_layers + 1)
        drawn = PromptSet(tuple(p for of_kind in self.drawn.tested.values() for p in of_kind))
        groups = contrast(drawn, "test")
        # As many of both: else a probe that takes all for harmless would be mostly right.
        size, rng = min(map(len, groups)), random.Random(self.seed)
        return [
            last_token_states(
                chat_model,
                rng.sample(texts, size),
                layers,
                batch_size=min(self.settings.batch_size, 64),
            )
            for texts in groups
        ]

    def _kl_to_base(self, chat_model: ChatModel, subject: Subject) -> dict[Kind, Any]:
        assert subject.reference is not None
        return {
            kind: kl_to_reference(
                chat_model,
                subject.reference,
                prompts,
                batch_size=min(self.settings.batch_size, 64),
            )
            for kind, prompts in self.drawn.tested.items()
        }

    def _common(self, subject: Subject, tokens: int) -> dict[str, Any]:
        """What every attack's results depend on, beside its own settings."""
        # Not the test prompts: no prompt's result depends on the others that are attacked.
        fitted_on = [
            # What only training reads changes nothing.
            [asdict(replace(prompt, refusal=None)) for prompt in split.prompts]
            for split in (self.drawn.splits.train, self.drawn.splits.validation)
        ]
        renderer = subject.chat_model.renderer
        decoding = subject.chat_model.model.generation_config.to_dict()
        return {
            "weights": subject.fingerprint,
            "base": None if subject.reference is None else self._base_fingerprint,
            "code": code_digest(),
            "prompts": digest(fitted_on),
            "rendering": digest([renderer.system_prompt, renderer.render("?")]),
            # Ends of turns, and penalties that some models bring even for greedy decoding.
            "generation_config": digest({n: v for n, v in decoding.items() if n not in NOTES}),
            "judge": self.judges.hashes[self.judges.headline],
            "max_new_tokens": tokens,
            "seed": self.seed,
        }
