"""The rank command's tables; each fits into 80 columns with up to four attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.ranking.results import (
    ALL,
    AS_SAMPLED,
    CHOSEN,
    COMPOSED,
    FIRST,
    FIRST_KEPT,
    HARMFUL,
    MRR,
    NDCG,
    PROBE,
    RANKER,
    RANKERS,
    TOP1,
    UNSEEN,
    RankResults,
)
from es2_lightning.evaluation.ranking.study import HARMLESS, NO_REFUSAL, PAIRS
from es2_lightning.evaluation.verdict import ALPHA
from es2_lightning.reports.cells import NOT_MEASURED, cell, figure

BASE, TUNED = "base", "tuned"
_VARIANT = {RANKER + UNSEEN: "unseen\n", RANKER + FIRST_KEPT: "kept\n"}
"""Before what is subtracted."""
_MINUS = {FIRST: "− first", PROBE: "− probe", PROBE + UNSEEN: "− probe"}
KINDS = ("answered", "refused")


def tables(results: RankResults) -> Iterator[Table]:
    """All that there is something in."""
    for model in results.values("model"):
        several = len(results.values("model")) > 1
        of = f" ({model} model)" if several else ""
        yield _composed(results, model, of)
        yield _orders(results, model, of)
        if results.values("metric", model=model, metric=f"{CHOSEN}answered"):
            yield _chosen(results, model, of)
        if results.values("lists", model=model, lists=AS_SAMPLED):
            yield _as_sampled(results, model, of)
        if any(" → " in group for group in results.values("group", model=model)):
            yield _across_sets(results, model, of)
        yield _differences(results, model, of)
    if TUNED in results.values("model") and results.values("lists", lists=AS_SAMPLED):
        yield _es2_and_srr(results)
    if results.costs:
        yield _costs(results)


def groups_of(results: RankResults, **wanted: str | int) -> list[str]:
    """The attacks, and the harmless prompts, that these rows are of."""
    groups = results.values("group", **wanted)
    return [g for g in groups if " → " not in g and g not in (HARMFUL, ALL, NO_REFUSAL)]


def _table(title: str, caption: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    return table


def _cell(estimate: Estimate | None) -> str:
    """A share with its interval, narrower than `cells.cell`: five of them stand in a row."""
    if estimate is None:
        return NOT_MEASURED
    value, low, high = (figure(x) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} {low}–{high}".rjust(10)


def _style(ranker: str) -> str | None:
    return "bold" if ranker == RANKER else None


def _named(ranker: str) -> str:
    for variant in (UNSEEN, FIRST_KEPT):
        if ranker.endswith(variant):
            return variant.replace(", ", "  ")
    return ranker


def _composed(results: RankResults, model: str, of: str) -> Table:
    groups = [*(groups_of(results, model=model, lists=COMPOSED) or [HARMFUL]), ALL]
    table = _table(
        f"First choice safe, %: lists with safe and unsafe candidates{of}",
        "Held-out prompts. On harmless prompts: first choice a right answer, among refusals, other "
        "answers and babble. attack unseen: fitted without the lists of the column's attack. all: "
        "over all prompts. Behind each figure: its 95 % interval.",
        ["", *groups],
    )
    for ranker in _rankers(results, model, COMPOSED):
        cells = [
            results.find(model=model, lists=COMPOSED, group=group, ranker=ranker, metric=TOP1)
            for group in groups
        ]
        table.add_row(_named(ranker), *map(_cell, cells), style=_style(ranker))
    return table


def _orders(results: RankResults, model: str, of: str) -> Table:
    table = _table(
        f"The same lists of harmful prompts{of}: the whole order",
        "MRR: of the first safe candidate. no refusal: top-1 of the lists without any refusal.",
        ["", "top-1, %", "NDCG", "MRR", "no refusal, %"],
    )
    for ranker in _rankers(results, model, COMPOSED):
        wanted = {"model": model, "lists": COMPOSED, "ranker": ranker}
        orders = [
            results.find(group=HARMFUL, metric=metric, **wanted) for metric in (TOP1, NDCG, MRR)
        ]
        bare = results.find(group=NO_REFUSAL, metric=TOP1, **wanted)
        table.add_row(
            _named(ranker),
            _cell(orders[0]),
            *(cell(estimate, "ratio").replace("[", "").replace("]", "") for estimate in orders[1:]),
            _cell(bare),
            style=_style(ranker),
        )
    return table


def _chosen(results: RankResults, model: str, of: str) -> Table:
    """What stands first, kind by kind."""
    table = _table(
        f"What is chosen first, %{of}: harmful prompts' lists | harmless prompts' lists",
        "answered: the harmful answer | the right one. helpful: a right answer to another, "
        "harmless prompt. other: unrelated and incoherent ones.",
        ["", "answered", "refused", "helpful", "other", "|", "answered", "refused", "other"],
    )
    kinds_known = {
        row.group
        for row in results.rows
        if (row.model, row.lists) == (model, COMPOSED) and row.metric.startswith(CHOSEN)
    }
    for ranker in _rankers(results, model, COMPOSED):
        cells: list[str] = []
        for group, kinds in ((HARMFUL, ("answered", "refused", "helpful")), (HARMLESS, KINDS)):
            shares = [
                results.find(
                    model=model,
                    lists=COMPOSED,
                    group=group,
                    ranker=ranker,
                    metric=CHOSEN + kind,
                )
                for kind in kinds
            ]
            known = [0.0 if share is None else share.value for share in shares]
            told = [*(figure(share) for share in known), figure(max(0.0, 1 - sum(known)))]
            cells += [*(told if group in kinds_known else [NOT_MEASURED] * len(told)), "|"]
        table.add_row(_named(ranker), *cells[:-1], style=_style(ranker))
    return table


def _as_sampled(results: RankResults, model: str, of: str) -> Table:
    number = max(results.values("num_candidates", model=model, lists=AS_SAMPLED))
    groups = groups_of(results, model=model, lists=AS_SAMPLED)
    table = _table(
        f"First choice safe, %: {number} candidates as the model gives them{of}",
        "Under most attacks few candidates are safe, or none: the oracle is the limit. harmless: "
        "the first choice is right. first kept: the first sample stays unless another's score is "
        "higher by more than the margin (ranking.margin; chosen on validation prompts where null).",
        ["", *groups],
    )
    for ranker in _rankers(results, model, AS_SAMPLED):
        wanted = {
            "model": model,
            "lists": AS_SAMPLED,
            "num_candidates": number,
            "ranker": ranker,
        }
        cells = [results.find(group=group, metric=TOP1, **wanted) for group in groups]
        table.add_row(_named(ranker), *map(_cell, cells), style=_style(ranker))
    return table


def _across_sets(results: RankResults, model: str, of: str) -> Table:
    pairs = [g.split(" → ") for g in results.values("group", model=model) if " → " in g]
    tested = list(dict.fromkeys(pair[1] for pair in pairs))
    table = _table(
        f"First choice safe, %: trained on one set of prompts, tested on another{of}",
        "Harmful prompts of the set in training, and all harmless ones.",
        ["trained on", "", *(f"tested on {name}" for name in tested)],
    )
    for trained in dict.fromkeys(pair[0] for pair in pairs):
        for ranker in results.values("ranker", model=model, group=f"{trained} → {tested[0]}"):
            cells = [
                results.find(model=model, group=f"{trained} → {one}", ranker=ranker, metric=TOP1)
                for one in tested
            ]
            table.add_row(trained, ranker, *map(_cell, cells))
    return table


def _differences(results: RankResults, model: str, of: str) -> Table:
    """Pairs of rankers, on composed lists and on the most candidates that were sampled."""
    own = [c for c in results.comparisons if c.model == model]
    pairs = [pair for pair in PAIRS if any((c.ranker, c.other) == pair for c in own)]
    table = _table(
        f"First choice safe: SRR minus others, points{of}",
        "* p < 0.05 by a paired sign-flip test over prompts. unseen: both fitted without the lists "
        "of the attack. harmless: first choice right.",
        ["", *(_VARIANT.get(pair[0], "\n") + _MINUS[pair[1]] for pair in pairs)],
    )
    most = max((c.num_candidates or 0 for c in own), default=0)
    for lists, number in ((COMPOSED, None), (AS_SAMPLED, most)):
        for group in (HARMFUL, HARMLESS):
            found = {
                (c.ranker, c.other): f"{100 * c.difference:+.0f}{'*' if c.p_value < ALPHA else ' '}"
                for c in own
                if (c.lists, c.num_candidates, c.group) == (lists, number, group)
            }
            if found:
                name = f"{group}, " + (f"m = {number}" if number else COMPOSED)
                table.add_row(name, *(found.get(pair, NOT_MEASURED) for pair in pairs))
    return table


def _es2_and_srr(results: RankResults) -> Table:
    most = max(results.values("num_candidates", lists=AS_SAMPLED))
    groups = groups_of(results, lists=AS_SAMPLED)
    table = _table(
        "ES2 and SRR: responses that are safe, % (SRR: the first choice of m candidates)",
        "Attacks on the tuned model are fitted on the tuned model. harmless: right answers.",
        ["", *groups],
    )
    numbers = dict.fromkeys((max(1, most // 4), most))
    for name, model in (("", BASE), ("ES2", TUNED)):
        rows: list[tuple[str, str, int]] = [(name or "neither", FIRST, most)]
        with_srr = f"{name} and SRR" if name else "SRR"
        rows += [(f"{with_srr}, m={number}", RANKER, number) for number in numbers]
        rows.append(("  first kept", RANKER + FIRST_KEPT, most))
        for label, ranker, number in rows:
            cells = [
                results.find(
                    model=model,
                    lists=AS_SAMPLED,
                    num_candidates=number,
                    group=group,
                    ranker=ranker,
                    metric=TOP1,
                )
                for group in groups
            ]
            table.add_row(label, *map(_cell, cells))
    return table


def _costs(results: RankResults) -> Table:
    table = _table(
        "What ranking costs beside sampling, MFLOPs for one prompt",
        "Counted as it runs: candidates of one prompt in one batch with a cache, until the last "
        "one ends; states in the blocks up to the ranker's layer.",
        ["m", "sampling", "states", "ranker", "extra, %"],
    )
    for cost in results.costs:
        table.add_row(
            str(cost.num_candidates),
            *(figure(flops / 1e6, "number") for flops in (cost.sampling, cost.states, cost.ranker)),
            f"{100 * cost.extra:.1f}",
        )
    return table


def _rankers(results: RankResults, model: str, lists: str) -> list[str]:
    there = results.values("ranker", model=model, lists=lists)
    return [ranker for ranker in RANKERS if ranker in there]
