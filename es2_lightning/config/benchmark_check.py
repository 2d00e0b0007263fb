"""What types and ranges cannot say of a benchmark's config; asked before any weights load."""

from __future__ import annotations

from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings_check import check_values
from es2_lightning.config.benchmark_schema import BenchmarkConfig
from es2_lightning.config.loaded_prompts import read_prompts
from es2_lightning.config.objects import build, check_words


def check_benchmark(config: BenchmarkConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A word or value that the benchmark does not take, a model that is not there,
            prompts that cannot be read, a class without prompts.
    """
    from es2_lightning.prompts.requirements import require_both_classes

    check_words(config.benchmark, "benchmark")
    check_values(config.model)
    refuse_missing_folder(config.model.name_or_path)
    require_both_classes(read_prompts(config.data.source))


def check_built(config: BenchmarkConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A device that is not there, a value that the benchmark does not take, a model
            that cannot be loaded as was set.
    """
    from es2_lightning.backbone.devices import choose_device

    choose_device(config.device)
    build(config.benchmark, "benchmark")
    from es2_lightning.backbone.loading import read_depth

    read_depth(config.model)
