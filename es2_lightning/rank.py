"""`python -m es2_lightning.rank`: a ranker of responses (SRR), trained and compared."""

from __future__ import annotations

import logging

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.evaluated_run import take_over, with_preset, with_taken_over
from es2_lightning.config.rank_check import check_built, check_rank
from es2_lightning.config.rank_schema import RankConfig
from es2_lightning.config.secrets import save_resolved

log = logging.getLogger(__name__)


@command(
    "rank",
    schema=RankConfig,
    check=check_rank,
    check_built=check_built,
    prepare=with_preset,
    own_values={"model": "model=hf model.name_or_path={value}"},
)
def main(config: RankConfig) -> None:
    """Sample, train, compare, report."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.config.versions import save_versions
    from es2_lightning.evaluation.progress import rich_progress
    from es2_lightning.ranking_run import rank
    from es2_lightning.reports.rank_report import write_rank_report

    folder = job.output_dir()
    run = None
    if config.run is not None:
        config, run = take_over(config, job.overrides())
    log.info("Selected: %s", job.selected(config))
    composed = job.composed_config()
    if run is not None:
        log.info("From the run: model, data and seed, but for what the command line sets")
        composed = with_taken_over(composed, config, run)
    save_resolved(composed, folder / "config.yaml")
    save_versions(folder / "versions.json", seed=config.seed)
    try:
        with rich_progress() as progress:
            results = rank(config, folder, run, progress)
    except KeyboardInterrupt:
        log.info("Sampled candidates are kept in %s; the same command goes on.", config.cache)
        raise
    write_rank_report(results, folder, ranker=job.choices().get("ranker", "listnet"))
    log.info("The run's folder: %s", folder)


if __name__ == "__main__":
    main()
