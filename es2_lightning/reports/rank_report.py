from rich.console import Console


def write_rank_report(results, folder, *, console=None):
    from es2_lightning.evaluation.ranking.results import TOP1

    for row in results.rows:
        if row.metric == TOP1:
            print(
                row.model,
                row.lists,
                row.group,
                row.num_candidates,
                row.ranker,
                round(row.estimate.value, 3),
                round(row.estimate.low, 3),
                round(row.estimate.high, 3),
                row.estimate.n,
            )
    for c in results.comparisons:
        print(c)
    print(results.notes)
