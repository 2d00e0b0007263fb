"""`python -m es2_lightning.sweep_report dir=…`: a sweep's table and picture, drawn anew."""

from __future__ import annotations

from pathlib import Path

from es2_lightning.config.command import command
from es2_lightning.config.sweep_report_schema import SweepReportConfig, check_sweep_report


@command("sweep_report", schema=SweepReportConfig, check=check_sweep_report)
def main(config: SweepReportConfig) -> None:
    """Read, show, draw."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.reports.sweep_report import show_sweep

    assert config.dir is not None
    show_sweep(Path(config.dir).absolute())


if __name__ == "__main__":
    main()
