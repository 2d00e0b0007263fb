"""`python -m es2_lightning.dashboard project=…`: a W&B workspace with panels for what runs log."""

from __future__ import annotations

import logging

from es2_lightning.config.command import command
from es2_lightning.config.dashboard_schema import DashboardConfig, check_dashboard

log = logging.getLogger(__name__)


@command("dashboard", schema=DashboardConfig, check=check_dashboard)
def main(config: DashboardConfig) -> None:
    """Lay out, and save or write down."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.reports.dashboard import save_workspace, saved_url, write_specification
    from es2_lightning.reports.dashboard_panels import sections

    panels = sections(config.attacks)
    if config.dry_run:
        path = write_specification(panels, config.project, name=config.name)
        log.info("What would be sent to W&B: %s", path)
        return
    url = save_workspace(
        panels,
        config.project,
        entity=config.entity,
        name=config.name,
        url=config.url or saved_url(config.project, entity=config.entity),
    )
    log.info("The workspace: %s", url)


if __name__ == "__main__":
    main()
