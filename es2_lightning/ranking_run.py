"""The models that the rank command samples from, their rankers, and what these find."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from es2_lightning.backbone.adapters import load_adapter
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.devices import choose_device
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.prompt_lengths import fit_to_length
from es2_lightning.backbone.ranker_folder import save_ranker
from es2_lightning.backbone.response_states import ListStates, state_reading
from es2_lightning.backbone.stored_states import stored_response_states
from es2_lightning.config.earlier_run import EarlierRun
from es2_lightning.config.evaluation_objects import build_attacks, build_judges
from es2_lightning.config.loaded_prompts import load_prompts
from es2_lightning.config.objects import build
from es2_lightning.config.rank_check import usable
from es2_lightning.config.rank_schema import RankConfig
from es2_lightning.evaluation.attacks.attack import Target
from es2_lightning.evaluation.drawn_prompts import DrawnPrompts
from es2_lightning.evaluation.judges.panel import JudgePanel
from es2_lightning.evaluation.parts import PartsFolder, digest
from es2_lightning.evaluation.progress import Progress
from es2_lightning.evaluation.ranking.baselines import least_perplexity
from es2_lightning.evaluation.ranking.gathering import SplitCandidates, draw_prompts, gather
from es2_lightning.evaluation.ranking.given import SPLITS, given_lists
from es2_lightning.evaluation.ranking.listed import Listed
from es2_lightning.evaluation.ranking.results import (
    MEAN_DIFFERENCE,
    PROBE,
    RANKER,
    RankCost,
    RankResults,
)
from es2_lightning.evaluation.ranking.sampling import SampledModel
from es2_lightning.evaluation.ranking.study import Fit, RankingStudy, doubling
from es2_lightning.evaluation.subject import Subject
from es2_lightning.evaluation_run import BASE, tuned_subject
from es2_lightning.prompts.candidate_lists import CandidateList, write_lists
from es2_lightning.prompts.prompt import PromptSplits
from es2_lightning.ranking_cost import ranking_costs
from es2_lightning.training.ranking.methods import LinearProbeRanking, MeanDifferenceRanking

log = logging.getLogger(__name__)
Lists = Mapping[str, Sequence[CandidateList]]
"""By split."""
COUNTED = 4
"""Prompts by which costs are counted."""


def rank(
    config: RankConfig, folder: Path, run: EarlierRun | None, progress: Progress
) -> RankResults:
    """Train and compare rankers on the base model, and on the tuned one that the config names.

    Args:
        config: What `run` brings is taken over already.
        folder: Of the run; gets the rankers and the lists.
        run: The training run whose models these are.
        progress: Told how far each stage is.

    Raises:
        UserError: A model, adapter, judge, prompt file or file of lists cannot be used.
    """
    splits = None if config.lists else load_prompts(config.data.source)
    chat_model = load_chat_model(config.model)
    reading = state_reading(chat_model, layer=config.ranking.layer)
    if splits is not None:
        splits = fit_to_length(splits, chat_model.renderer, too_long=config.data.too_long)  # type: ignore[arg-type]
    chat_model.model.to(choose_device(config.device))
    results = RankResults((), notes={"layer": reading.layer, "depth": reading.depth})
    for subject in _subjects(config, run, chat_model):
        made = _Ranked(config, folder, subject, splits, progress).results()
        results = results.joined(made)
    return results


def _subjects(
    config: RankConfig, run: EarlierRun | None, chat_model: ChatModel
) -> Iterator[Subject]:
    adapter = run.adapter if run else (Path(config.adapter) if config.adapter else None)
    if adapter is not None:
        # An adapter that does not fit is told before the base is sampled from for an hour.
        load_adapter(chat_model, adapter)
        chat_model.model = chat_model.model.unload()
    yield Subject(BASE, chat_model, weights_fingerprint(chat_model.model))
    if adapter is not None or run is not None:
        yield tuned_subject(chat_model, config.model, adapter, run)


class _Ranked:
    """One model's study."""

    def __init__(
        self,
        config: RankConfig,
        folder: Path,
        subject: Subject,
        splits: PromptSplits | None,
        progress: Progress,
    ) -> None:
        self.config, self.settings = config, config.ranking
        self.folder, self.cache = folder, Path(config.cache)
        self.subject, self.splits, self.progress = subject, splits, progress

    def results(self) -> RankResults:
        """Sample or read, fit, compare."""
        label = self.subject.label
        if self.splits is None:
            lists: Lists = given_lists(
                self.config.lists,
                self.subject.chat_model.renderer,
                bad_lists=self.config.bad_lists,  # type: ignore[arg-type]
                seed=self.config.seed,
            )
            sampled = None
        else:
            model, candidates = self._candidates(self.splits)
            lists = {split: self._composed(candidates[split]) for split in SPLITS}
            sampled = candidates["test"].as_sampled()
        for split in SPLITS:
            write_lists(self.folder / "lists" / label / f"{split}.jsonl", lists[split])
        train, validation, test = (self._listed(lists[split], split) for split in SPLITS)
        study = RankingStudy(
            label,
            train,
            validation,
            self._fits(),
            least_perplexity(self.subject.chat_model, batch_size=self.settings.batch_size),
            margin=self.settings.margin,
        )
        study.fit()
        if sampled is not None and study.margin is None:
            held = candidates["validation"].as_sampled()
            study.set_margin(self._listed(held, "validation as sampled"))
        save_ranker(
            study.rankers[RANKER],  # type: ignore[arg-type]
            self.folder / "ranker" / label,
            about={"model": self.config.model.name_or_path, "margin": study.margin},
        )
        rows, comparisons = study.composed(test)
        rows += study.across_sets(test, self._sets(lists), [PROBE, RANKER])
        if sampled is not None:
            more, compared = study.as_sampled(self._listed(sampled, "test as sampled"))
            rows, comparisons = rows + more, comparisons + compared
        costs: tuple[RankCost, ...] = ()
        if sampled is not None and self.subject.reference is None:
            # The tuned model costs the same but for its adapter.
            prompts = [judged.question.prompt for judged in candidates["test"].harmless]
            numbers = doubling(self.settings.test_candidates)
            costs = ranking_costs(model, study.rankers[RANKER], prompts[:COUNTED], numbers)
        counts = {split: len(lists[split]) for split in SPLITS}
        return RankResults(
            tuple(rows),
            tuple(comparisons),
            costs,
            notes={label: {"lists": counts, "margin": study.margin}},
        )

    def _candidates(self, splits: PromptSplits) -> tuple[SampledModel, dict[str, SplitCandidates]]:
        judges: JudgePanel = build_judges(self.config.judge)
        judges.check()
        settings, label = self.settings, self.subject.label
        chat_model = self.subject.chat_model
        tokens = settings.max_new_tokens or DrawnPrompts({}, splits).response_limit(
            chat_model.renderer
        )
        target = Target(
            chat_model=chat_model,
            splits=splits,
            judge=judges.attacker,
            max_new_tokens=tokens,
            reference=self.subject.reference,
            batch_size=settings.batch_size,
            seed=self.config.seed,
            progress=self.progress,
        )
        model = SampledModel(
            label, target, self.subject.fingerprint, PartsFolder(self.cache), settings.temperature
        )
        attacks = usable(self.config.attack)
        if left := self.config.attack.keys() - attacks.keys():
            log.warning(
                "attack.%s: no templates are given (attack_values.template.file), so it is left "
                "out",
                *left,
            )
        built = build_attacks(attacks)
        sizes = {
            "train": settings.train_candidates,
            "validation": settings.train_candidates,
            "test": settings.test_candidates,
        }
        return model, {
            split: gather(
                model,
                built,
                attacks,
                draw_prompts(
                    getattr(splits, split),
                    harmful=getattr(settings, f"{split}_prompts"),
                    harmless=getattr(settings, f"{split}_harmless"),
                    seed=self.config.seed,
                ),
                judges.attacker,
                split=split,
                num_candidates=number,
            )
            for split, number in sizes.items()
        }

    def _composed(self, candidates: SplitCandidates) -> list[CandidateList]:
        made = candidates.composed(size=self.settings.list_size, seed=self.config.seed)
        return [found for composed in made.values() for found in composed.lists]

    def _listed(self, lists: Sequence[CandidateList], name: str) -> Listed:
        """With states, from the cache where they were read before."""
        asked = [(found.asked, found.responses) for found in lists]
        what = digest([self.subject.fingerprint, self.settings.layer, [repr(a) for a in asked]])
        states: ListStates = stored_response_states(
            self.cache / f"{self.subject.label}-{name.replace(' ', '-')}-{what}.safetensors",
            self.subject.chat_model,
            asked,
            layer=self.settings.layer,
            response_token=self.settings.response_token,  # type: ignore[arg-type]
            batch_tokens=self.settings.batch_tokens,
        )
        return Listed(tuple(lists), states)

    def _fits(self) -> dict[str, Fit]:
        def by(method: Any) -> Callable[[Listed, Listed], Any]:
            return partial(_fit, method, self.config.seed)

        return {
            MEAN_DIFFERENCE: by(MeanDifferenceRanking()),
            PROBE: by(LinearProbeRanking()),
            RANKER: by(build(self.config.ranker, "ranker")),
        }

    def _sets(self, lists: Lists) -> Mapping[str, Sequence[str]]:
        """Which prompt sets are compared; none where there is only one."""
        found = dict.fromkeys(one.prompt_set for one in lists["train"] if one.harmful)
        each = {name: [name] for name in found if name}
        named = {
            name: members
            for name, members in self.settings.prompt_sets.items()
            if found.keys() & set(members)
        }
        sets: Mapping[str, Sequence[str]] = named or each
        return sets if len(sets) > 1 else {}


def _fit(method: Any, seed: int, train: Listed, validation: Listed) -> Any:
    return method.fit(train.labelled, validation.labelled, seed=seed)
