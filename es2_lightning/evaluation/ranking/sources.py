"""Where candidates come from: an attack as something that a model is sampled under.

An attack by itself is greedy; here the same attack stands around samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from es2_lightning.backbone.sampling import row_seed
from es2_lightning.backbone.steering import steer
from es2_lightning.errors import UserError
from es2_lightning.evaluation.attacks.attack import Attack, Target
from es2_lightning.evaluation.attacks.direct import Direct
from es2_lightning.evaluation.attacks.prefill import Prefill
from es2_lightning.evaluation.attacks.scav import Scav, no_layer_above
from es2_lightning.evaluation.attacks.scav_shift import BatchShift
from es2_lightning.evaluation.attacks.template import Template
from es2_lightning.prompts.prompt import Prompt

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

DIRECT = "direct"


def _nothing(_rows: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Question:
    """What a model is asked for one prompt.

    Attributes:
        prompt: The prompt itself.
        asked: With what the attack put around it.
        prefix: How the response begins; None: the model begins it.
    """

    prompt: Prompt
    asked: Prompt
    prefix: str | None = None


@dataclass(frozen=True)
class ReadySource:
    """An attack that is ready to be sampled under.

    Attributes:
        question: What is asked for a prompt.
        around: Entered while so many rows are sampled, with one position a row in each pass.
    """

    question: Callable[[Prompt], Question]
    around: Callable[[int], AbstractContextManager[None]] = _nothing


def check_source(attack: Attack, name: str) -> None:
    """Refuse an attack that supplies no candidates.

    Raises:
        UserError: It is none of those that do.
    """
    if not isinstance(attack, (Direct, Prefill, Template, Scav)):
        raise UserError(
            f"attack.{name}: candidates are not sampled under it. Accepted: direct, prefill, "
            "template, scav."
        )


@contextmanager
def opened(attack: Attack, target: Target) -> Iterator[ReadySource]:
    """Make an attack ready: SCAV's probes are fitted.

    Args:
        attack: One that `check_source` lets pass.
        target: The model, and what the attacker has.

    Raises:
        NotPossible: The attack cannot be made on this model.
    """
    if isinstance(attack, Prefill):
        yield ReadySource(lambda prompt: Question(prompt, prompt, attack.prefix_of(prompt)))
    elif isinstance(attack, Template):
        templates = attack.templates

        def filled(prompt: Prompt) -> Question:
            # One template a prompt, whichever prompts are beside it.
            template = templates[row_seed(target.seed, prompt.conversation) % len(templates)]
            return Question(prompt, prompt.asking(template.fill(prompt.text)))

        yield ReadySource(filled)
    elif isinstance(attack, Scav):
        probes = attack.fitting.fit(target)
        setting = attack.setting(probes)
        if setting is None:
            raise no_layer_above(attack.p1, probes.accuracy(scale_free=attack.scale_free))

        def shifted(rows: int) -> AbstractContextManager[None]:
            model: ChatModel = target.chat_model
            shift = BatchShift(probes, [setting] * rows, [inf] * rows, model.device)
            return steer(model.model, shift.interventions())

        yield ReadySource(lambda prompt: Question(prompt, prompt), shifted)
    else:
        yield ReadySource(lambda prompt: Question(prompt, prompt))
