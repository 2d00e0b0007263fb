"""The objects of an evaluation that a config names: attacks, judges, and what measures capability.

Imports no more than these do: a judge is light, most attacks need torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from es2_lightning.config.objects import build

if TYPE_CHECKING:
    from es2_lightning.evaluation.attacks.attack import Attack
    from es2_lightning.evaluation.capability.capability import Capability
    from es2_lightning.evaluation.judges.panel import JudgePanel


def build_attacks(nodes: Mapping[str, Any]) -> dict[str, Attack]:
    """The attacks of `attack=[…]`, by name.

    Raises:
        UserError: A word or value that an attack does not take.
    """
    return {name: build(node, f"attack.{name}") for name, node in nodes.items()}


def build_judges(nodes: Mapping[str, Any]) -> JudgePanel:
    """The judges of `judge=[…]`.

    Raises:
        UserError: None, or a word or value that one does not take.
    """
    from es2_lightning.evaluation.judges.panel import JudgePanel

    return JudgePanel({name: build(node, f"judge.{name}") for name, node in nodes.items()})


def build_capability(node: Mapping[str, Any]) -> Capability | None:
    """What measures capability; None with `capability=none`.

    Raises:
        UserError: A word or value that it does not take.
    """
    return build(node, "capability") if node else None
