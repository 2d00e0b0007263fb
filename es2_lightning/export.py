"""`python -m es2_lightning.export`: a tuned model as others load it, with a model card."""

from __future__ import annotations

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.export_check import check_built, check_export
from es2_lightning.config.export_schema import ExportConfig
from es2_lightning.config.exported_model import find_exported


@command(
    "export",
    schema=ExportConfig,
    check=check_export,
    check_built=check_built,
    own_values={"model": "model=hf model.name_or_path={value}"},
)
def main(config: ExportConfig) -> None:
    """Find, write, verify, and upload where that was asked for."""
    # Heavy imports stand here, so that `--help` and a mistake in the config answer at once.
    from es2_lightning.export_run import export

    export(config, find_exported(config, job.overrides()))


if __name__ == "__main__":
    main()
