"""What an evaluation wrote comes back as it was measured."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from es2_lightning.errors import UserError
from es2_lightning.evaluation.comparison import Comparison, compare
from es2_lightning.evaluation.results_files import write_results
from es2_lightning.evaluation.saved_results import read_comparison
from es2_lightning.evaluation.verdict import verdict

from .small_evaluations import measure


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two tiny random models, measured."""
    folder = tmp_path_factory.mktemp("parts")
    return compare(measure(folder), measure(folder, "tuned", seed=1))


def plain(value: Any) -> Any:
    """Equal for what is equal to four digits; NaN to itself."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def test_all_comes_back(comparison: Comparison, tmp_path: Path) -> None:
    write_results(comparison, tmp_path)
    back = read_comparison(tmp_path)
    assert back is not None
    assert plain(as_dicts(back.rows)) == plain(as_dicts(comparison.rows))
    assert back.effective == comparison.effective
    assert back.base_budgets == comparison.base_budgets
    assert verdict(back) == verdict(comparison)
    for found, wanted in zip(back.measurements, comparison.measurements, strict=True):
        assert found.attacks.keys() == wanted.attacks.keys() >= {"scav", "scav_worst"}
        for name, made in wanted.attacks.items():
            read = found.attacks[name]
            assert [p.text for p in read.prompts] == [p.text for p in made.prompts]
            for field in ("attacked", "verdicts", "coherence", "budgets", "not_possible"):
                assert plain(as_dicts(getattr(read, field))) == plain(
                    as_dicts(getattr(made, field))
                ), (name, field)
        assert found.direct.keys() == wanted.direct.keys()
        for field in ("separability", "projections", "kl_to_base", "capability"):
            assert plain(as_dicts(getattr(found, field))) == plain(
                as_dicts(getattr(wanted, field))
            ), field
    # Figures made anew of what was read are the ones that were written.
    again = {(r.attack, r.metric, r.layer): r.tuned for r in compare(*back.measurements).rows}
    for row in comparison.rows:
        if row.tuned:
            assert again[row.attack, row.metric, row.layer].value == pytest.approx(
                row.tuned.value, rel=1e-3, nan_ok=True
            )


def as_dicts(value: Any) -> Any:
    """Dataclasses at any depth as plain containers."""
    if isinstance(value, dict):
        return {key: as_dicts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_dicts(item) for item in value]
    return as_dicts(asdict(value)) if hasattr(value, "__dataclass_fields__") else value


def test_nothing_is_none_and_damage_is_told(comparison: Comparison, tmp_path: Path) -> None:
    assert read_comparison(tmp_path) is None
    write_results(comparison, tmp_path)
    (tmp_path / "generations.jsonl").write_text('{"model": "base"')
    with pytest.raises(UserError, match=r"cannot be read .*evaluate run=…` writes"):
        read_comparison(tmp_path)
