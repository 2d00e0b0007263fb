"""The search space of an Optuna sweep, in Optuna's own words.

hydra:
  sweeper:
    search_space:
      loss.kl_weight: {low: 0.05, high: 2, log: true}
      schedule.max_epochs: {type: int, low: 2, high: 10, step: 2}
      layers: {choices: [emergence_terminal, all]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from omegaconf import OmegaConf

from es2_lightning.errors import UserError

ACCEPTED = (
    "{choices: [a, b, …]}, {low: 0.1, high: 1} with log: true or step: 0.1, or "
    "{type: int, low: 1, high: 8} with log: true or step: 2"
)
TYPES = ("float", "int", "categorical")


@dataclass(frozen=True)
class Dimension:
    """What one key ranges over: `choices`, or the numbers from `low` to `high`.

    Attributes:
        whole: Whole numbers only.
        step: Between two numbers; None: any.
        log: Drawn evenly on a logarithmic scale.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    step: float | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that stand for all."""
        return self.choices or tuple(dict.fromkeys((self.low, self.high)))


def read_search_space(node: Mapping[str, Any] | None) -> list[Dimension]:
    """The space of a sweeper's config.

    Raises:
        UserError: A dimension that Optuna would not take.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return [_dimension(str(key), words) for key, words in (plain or {}).items()]


def of_override(override: Override) -> Dimension:
    """What a sweep on the command line ranges over: `a,b`, `range(…)` or `interval(…)`."""
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        # As in Hydra's own plugin: interval() of whole numbers means them; tag(log, …) the scale.
        return _checked(
            Dimension(key, low=value.start, high=value.end, whole=whole, log="log" in value.tags)
        )
    assert isinstance(value, ChoiceSweep) or override.is_discrete_sweep()
    return Dimension(key, choices=tuple(override.sweep_string_iterator()))


def corners(sweeper: Any) -> list[list[str]]:
    """Jobs in which each dimension takes each of its ends once: mistakes show in these.

    Args:
        sweeper: Its config. One without a search space gives a job of no words.
    """
    space = read_search_space(sweeper.get("search_space"))
    first = {dimension.key: dimension.ends[0] for dimension in space}
    points = [first]
    points += [{**first, dimension.key: end} for dimension in space for end in dimension.ends[1:]]
    return [words(point) for point in points]


def words(point: Mapping[str, Any]) -> list[str]:
    """Values as overrides."""
    return [f"{key}={_word(value)}" for key, value in point.items()]


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _dimension(key: str, of_key: Any) -> Dimension:
    known = {"type", "choices", "low", "high", "step", "log"}
    if not isinstance(of_key, dict) or not of_key or of_key.keys() - known:
        raise _refused(key, of_key)
    kind = of_key.get("type", "categorical" if "choices" in of_key else "float")
    numbers = [of_key[name] for name in ("low", "high", "step") if of_key.get(name) is not None]
    if kind not in TYPES or not all(_is_number(number) for number in numbers):
        raise _refused(key, of_key)
    if kind == "categorical":
        choices: Sequence[Any] = of_key.get("choices") or ()
        plain = all(c is None or isinstance(c, (str, int, float, bool)) for c in choices)
        if not choices or not plain or numbers:
            raise _refused(key, of_key)
        return Dimension(key, choices=tuple(choices))
    if not {"low", "high"} <= of_key.keys() or "choices" in of_key:
        raise _refused(key, of_key)
    return _checked(
        Dimension(
            key,
            low=of_key["low"],
            high=of_key["high"],
            whole=kind == "int",
            step=of_key.get("step"),
            log=bool(of_key.get("log", False)),
        )
    )


def _checked(dimension: Dimension) -> Dimension:
    low, high, step = dimension.low, dimension.high, dimension.step
    whole = all(isinstance(n, int) for n in (low, high, step) if n is not None)
    wrong = (
        low > high
        or (dimension.log and (low <= 0 or step is not None))
        or (step is not None and step <= 0)
        or (dimension.whole and not whole)
    )
    if wrong:
        shown = {"low": low, "high": high, "step": step, "log": dimension.log}
        raise _refused(dimension.key, shown)
    return dimension


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refused(key: str, given: Any) -> UserError:
    return UserError(
        f"hydra.sweeper.search_space.{key}={given} is not a range. Accepted: {ACCEPTED}; low ≤ "
        "high, and above 0 with log."
    )
