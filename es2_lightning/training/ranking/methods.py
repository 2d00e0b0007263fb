"""The ways to get a ranker, chosen by `_target_`: conf/ranker/*.yaml. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from es2_lightning.backbone.ranker_shape import RankerShape, is_number, is_whole
from es2_lightning.errors import UserError
from es2_lightning.objectives.ranking_names import RANKING_OBJECTIVES, RankingObjective

if TYPE_CHECKING:
    from es2_lightning.backbone.labelled_lists import LabelledLists
    from es2_lightning.backbone.ranker_folder import AnyRanker


class RankerMethod(Protocol):
    """A way to get a ranker from labelled lists."""

    def fit(
        self, train: LabelledLists, validation: LabelledLists, *, seed: int = 0, **run: Any
    ) -> AnyRanker:
        """The ranker.

        Args:
            train: What it is fitted on.
            validation: What it may choose by; there may be none.
            seed: Of what is random.
            run: What `fit_ranker` takes beside: trainer, folder, loggers, callbacks.

        Raises:
            UserError: There are no good or no bad responses.
        """


@dataclass(frozen=True, kw_only=True)
class TransformerRanking(RankerShape):
    """SRR's ranker, trained with Lightning.

    Attributes:
        objective: `listnet`, the paper's, or `pairwise` or `pointwise`.
        lr: Of AdamW.
        weight_decay: Of AdamW.
        max_epochs: Passes over the training lists.
        lists_per_batch: Of all processes together.
        foreign_instructions: The share of a training batch's lists that get another list's
            instruction, so that a response has to speak for itself: a jailbreak that was not seen
            in training makes a harmful instruction look harmless. Not in the paper; 0 is off.

    Raises:
        UserError: A value that is not accepted.
    """

    objective: RankingObjective = "listnet"
    lr: float = 1e-3
    weight_decay: float = 0.01
    max_epochs: int = 30
    lists_per_batch: int = 32
    foreign_instructions: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in RANKING_OBJECTIVES:
            raise UserError(
                f"objective={self.objective}: accepted are {', '.join(RANKING_OBJECTIVES)}"
            )
        for name in ("max_epochs", "lists_per_batch"):
            if not is_whole(getattr(self, name)):
                raise UserError(f"{name}={getattr(self, name)}: accepted is a whole number ≥ 1")
        for name in ("lr", "weight_decay"):
            if not (is_number(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"{name}={getattr(self, name)}: accepted is a number ≥ 0")
        share = self.foreign_instructions
        if not (is_number(share) and 0 <= share < 1):
            raise UserError(f"foreign_instructions={share}: accepted is a share from 0 to below 1")

    def fit(
        self, train: LabelledLists, validation: LabelledLists, *, seed: int = 0, **run: Any
    ) -> AnyRanker:
        """See `RankerMethod`."""
        from torch.optim import AdamW

        from es2_lightning.training.ranking.fitting import fit_ranker

        return fit_ranker(
            train,
            validation,
            objective=self.objective,
            shape=RankerShape(**{f.name: getattr(self, f.name) for f in fields(RankerShape)}),
            optimizer=partial(AdamW, lr=self.lr, weight_decay=self.weight_decay),
            max_epochs=self.max_epochs,
            lists_per_batch=self.lists_per_batch,
            foreign_instructions=self.foreign_instructions,
            seed=seed,
            **run,
        )


@dataclass(frozen=True, kw_only=True)
class LinearProbeRanking:
    """Logistic regression on the responses' states, good against bad.

    Attributes:
        scale_free: Divide the states by their root mean square first.
    """

    scale_free: bool = True

    def fit(
        self, train: LabelledLists, validation: LabelledLists, *, seed: int = 0, **run: Any
    ) -> AnyRanker:
        """See `RankerMethod`; nothing is chosen by validation, and nothing is random."""
        from es2_lightning.backbone.direction_rankers import fit_linear_probe

        return fit_linear_probe(train, scale_free=self.scale_free)


@dataclass(frozen=True, kw_only=True)
class MeanDifferenceRanking:
    """The direction from the mean state of bad responses to that of good ones."""

    def fit(
        self, train: LabelledLists, validation: LabelledLists, *, seed: int = 0, **run: Any
    ) -> AnyRanker:
        """See `RankerMethod`; nothing is chosen by validation, and nothing is random."""
        from es2_lightning.backbone.direction_rankers import fit_mean_difference

        return fit_mean_difference(train)
