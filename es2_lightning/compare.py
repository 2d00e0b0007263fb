"""`python -m es2_lightning.compare runs=[…]`: runs side by side, on one page and in a table."""

from __future__ import annotations

import logging

from es2_lightning.config.command import command
from es2_lightning.config.compare_schema import (
    CompareConfig,
    check_compare,
    page_folder,
    run_folders,
)

log = logging.getLogger(__name__)


@command("compare", schema=CompareConfig, check=check_compare)
def main(config: CompareConfig) -> None:
    """Read, show, draw; of one run alone, its own page."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from rich.console import Console

    from es2_lightning.reports.page.comparison_page import runs_table, write_comparison
    from es2_lightning.reports.page.run_files import read_run_files
    from es2_lightning.reports.page.run_page import write_run_page
    from es2_lightning.reports.paper_tables import paper_tables, terminal_table

    runs = [read_run_files(folder) for folder in run_folders(config)]
    beside = paper_tables(runs) if config.paper else []
    if config.paper and not beside:
        log.warning("paper=true: none of these runs measured what the paper's tables show")
    if len(runs) == 1 and not beside:
        log.info("The report: %s", write_run_page(runs[0]))
        return
    Console().print(runs_table(runs))
    for table in beside:
        Console().print(terminal_table(table))
    log.info("The comparison: %s", write_comparison(runs, page_folder(config), paper=beside))


if __name__ == "__main__":
    main()
