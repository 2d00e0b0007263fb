"""Our figures beside the paper's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from es2_lightning.evaluation.comparison import compare
from es2_lightning.reports.page.run_files import RunFiles
from es2_lightning.reports.paper_figures import TITLES, Key, method_of, paper_figures, paper_rows
from es2_lightning.reports.paper_tables import paper_tables, terminal_table

from .synthetic import measurement

JUDGES = ("keyword_paper", "answer", "useful")


def a_run(
    method: str = "es2", *, model: str = "llama2", layers: Any = (10, 32), **measured: Any
) -> RunFiles:
    settings = {"judges": JUDGES, "attacks": ("repe", "scav", "soft_prompt"), **measured}
    base = measurement(**settings)
    tuned = measurement("tuned", **{**settings, "strength": 0.2, "without_effect": ()})
    return RunFiles(
        folder=Path("outputs/run"),
        choices={"method": method, "model": model},
        config={"layers": {"select": "list"}},
        layers=layers,
        depth=32,
        comparison=compare(base, tuned),
    )


def test_every_number_of_the_papers_tables_is_there() -> None:
    figures = paper_figures()
    counts = {table: sum(key.table == table for key in figures) for table in TITLES}
    assert counts == {"1": 144, "2": 112, "3": 96, "6": 111, "7": 108, "8": 45, "9": 144}
    assert figures[Key("1", "llama2", "es2", "scav", "useful")] == 70
    assert figures[Key("8", "llama3", "es2", "scav", "perturbation_distance")] == 1.9798
    assert figures[Key("7", "llama2", "es2:14+-1", "scav", "keyword")] == 72
    assert figures[Key("6", "llama2", "es2:32", "scav", "keyword")] == 28


def test_ours_stand_beside_the_papers_with_the_difference() -> None:
    runs = [a_run("stl"), a_run("es2")]
    rows = {row.key: row for row in paper_rows(runs, model="llama2", table="1")}
    assert {key.method for key in rows} == {"base", "stl", "es2"}
    for grade in ("keyword", "answer", "useful"):
        row = rows[Key("1", "llama2", "es2", "scav", grade)]
        assert runs[1].comparison is not None and row.ours is not None
        judge = "keyword_paper" if grade == "keyword" else grade
        measured = runs[1].comparison.row("scav", "defended", judge=judge)
        assert measured is not None and measured.tuned is not None
        assert row.ours.value == pytest.approx(100 * measured.tuned.value)
        assert row.difference == pytest.approx(row.ours.value - row.paper)  # type: ignore[operator]
    shift = paper_rows(runs, model="llama2", table="8")[0]
    assert shift.ours is not None and shift.ours.value > 9


def test_where_an_attack_has_no_effect_on_the_base_there_is_no_defence() -> None:
    runs = [a_run(without_effect=("repe",))]
    rows = paper_rows(runs, model="llama2", table="1")
    assert {row.key.attack for row in rows if row.means_nothing} == {"repe"}
    shown = paper_tables(runs)[0]
    assert any(row.words.startswith("repe") and row.cells[0].text == "n/a" for row in shown.rows)


@pytest.mark.parametrize(
    ("layers", "method"),
    [((10, 32), "es2"), ((14, 32), "es2:14+-1"), ((32,), "es2:32"), ((10, 20, 32), "es2:10+20+-1")],
)
def test_layers_are_named_as_in_the_paper(layers: tuple[int, ...], method: str) -> None:
    assert method_of(a_run(layers=layers)) == method


def test_a_table_is_shown_only_where_a_run_is_what_it_is_about() -> None:
    def shown(*runs: RunFiles) -> set[str]:
        return {t for t in TITLES if paper_rows(runs, model="llama2", table=t)}

    assert shown(a_run(attacks=("scav",), layers=(14,))) == {"6"}
    assert shown(a_run(attacks=("scav",), layers=(14, 32))) == {"7", "8"}
    assert shown(a_run(attacks=("gcg",))) == {"9"}
    assert shown(a_run()) == {"1", "3", "8", "9"}
    assert not shown(RunFiles(folder=Path("outputs/run"), choices={"model": "llama2"}))


def test_a_model_that_is_not_in_the_paper_is_said_not_to_be() -> None:
    runs = [a_run(model="organism", judges=("exact", "keyword_paper")), a_run(model="mistral")]
    first, *_, last = paper_tables(runs)
    assert "those of llama2. organism is not in the paper" in first.about
    assert "those of mistral" in last.about and "is not in the paper" not in last.about
    graded = {row.words for row in first.rows if row.cells}
    assert "scav, Answer" in graded and "scav, Useful" not in graded


def test_of_several_runs_the_first_is_shown_and_that_is_said() -> None:
    said = "Of several runs the first is shown: ES2 (2)."
    assert all(said in table.about for table in paper_tables([a_run(), a_run()]))
    assert not any(said in table.about for table in paper_tables([a_run(), a_run("stl")]))


def test_it_fits_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    for table in paper_tables([a_run("circuit_breakers"), a_run(), a_run(layers=(14, 32))]):
        console.print(terminal_table(table))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert any("Circuit breakers (not in the paper)" in line for line in lines)
    assert any("ES2 on layers 14 and L" in line for line in lines)
    assert max(map(len, lines)) <= 80
