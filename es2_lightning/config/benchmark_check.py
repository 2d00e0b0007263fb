"""What types and ranges cannot say of a benchmark's config; asked before any weights load."""

from __future__ import annotations

from es2_lightning.backbone.load_errors import refuse_missing_folder
from es2_lightning.backbone.settings_check import check_values
from es2_lightning.config.benchmark_schema import BenchmarkConfig
from es2_lightning.config.loaded_prompts import read_prompts
from es2_lightning.config.objects import build, check_words
from es2_lightning.config.wording import did_you_mean, listed
from es2_lightning.errors import UserError
from es2_lightning.training.cost.named_shapes import NAMED_SHAPES
from es2_lightning.training.scaling.benchmark import STRATEGIES, ScalingBenchmark
from es2_lightning.training.step_benchmark.benchmark import StepBenchmark

DEFAULT_SHAPE = "small12_32k"
"""Where a step is measured and no model is named; a CPU is through with it in minutes."""
CHOOSES_A_MODEL = {"model", "model.shape", "model.name_or_path"}
STEP = f"{StepBenchmark.__module__}.{StepBenchmark.__qualname__}"
SCALING = f"{ScalingBenchmark.__module__}.{ScalingBenchmark.__qualname__}"


def prepare(words: list[str]) -> list[str]:
    """The command line, with what it implies.

    Raises:
        UserError: A trainer that the scaling benchmark does not measure.
    """
    return with_shape(with_strategy(words))


def with_strategy(words: list[str]) -> list[str]:
    """The command line, `trainer=…` as the scaling benchmark's strategy."""
    told = [word for word in words if word.lstrip("+").startswith("trainer=")]
    if not told:
        return words
    strategy = told[-1].partition("=")[2]
    if strategy not in STRATEGIES:
        raise UserError(f"{told[-1]}: the benchmark measures {listed(STRATEGIES)}")
    rest = [word for word in words if word not in told]
    if not any(word.startswith("benchmark=") for word in rest):
        rest.insert(0, "benchmark=scaling")
    return [*rest, f"benchmark.strategies=[{strategy}]"]


def with_shape(words: list[str]) -> list[str]:
    """The command line, with a shape where it names no model and measures a step."""
    keys = {word.partition("=")[0].lstrip("+~"): word.partition("=")[2] for word in words}
    measures_a_step = keys.get("benchmark", "step") in ("step", "scaling")
    looks = any(word.startswith("-") for word in words)
    if not measures_a_step or looks or keys.keys() & CHOOSES_A_MODEL:
        return words
    return [*words, f"model.shape={DEFAULT_SHAPE}"]


def check_benchmark(config: BenchmarkConfig) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: A word or value that the benchmark does not take, a shape that has no name, a
            model that is not there, a layer that a shape lacks, prompts that cannot be read, a
            class without prompts.
    """
    from es2_lightning.prompts.requirements import require_both_classes

    check_words(config.benchmark, "benchmark")
    check_values(config.model)
    if config.model.shape is None:
        refuse_missing_folder(config.model.name_or_path)
    reads_prompts = True
    if config.benchmark.get("_target_") == STEP:
        reads_prompts = _check_step(config)
    elif config.benchmark.get("_target_") == SCALING:
        reads_prompts = _check_scaling(config)
    elif config.model.shape is not None or config.device == "meta":
        key = "device=meta" if config.device == "meta" else f"model.shape={config.model.shape}"
        raise UserError(f"{key} goes with benchmark=step and benchmark=scaling only")
    if reads_prompts:
        require_both_classes(read_prompts(config.data.source))


def _check_step(config: BenchmarkConfig) -> bool:
    """What can be told of the step's benchmark at once; whether it reads prompts."""
    benchmark = build(config.benchmark, "benchmark")
    shape = config.model.shape
    _require_lora(config)
    if shape is not None:
        _require_shape(shape)
        benchmark.layer_of(NAMED_SHAPES[shape].num_layers)
    return bool(benchmark.lengths == "data")


def _check_scaling(config: BenchmarkConfig) -> bool:
    """The same of the scaling benchmark, which reads no prompts."""
    build(config.benchmark, "benchmark")
    _require_lora(config)
    if config.model.shape is None:
        raise UserError("benchmark=scaling measures a shape: model.shape=…, not a model's weights")
    _require_shape(config.model.shape)
    if config.model.reference == "copy":
        raise UserError("model.reference=copy: benchmark=scaling measures cached and adapter")
    if config.device not in ("auto", "cpu", "meta"):
        raise UserError(
            f"device={config.device}: benchmark=scaling measures CPU processes; accepted are cpu, "
            "and meta: only predicted"
        )
    for key in ("compile", "micro_batch"):
        if value := getattr(config.step, key):
            raise UserError(f"step.{key}={value} is not measured by benchmark=scaling")
    return False


def _require_lora(config: BenchmarkConfig) -> None:
    if config.model.mode != "lora":
        raise UserError(f"model.mode={config.model.mode}: a step is measured with model.mode=lora")


def _require_shape(shape: str) -> None:
    if shape not in NAMED_SHAPES:
        near = did_you_mean(shape, list(NAMED_SHAPES))
        raise UserError(
            f"model.shape={shape}: there is no such shape.{near} Accepted: "
            f"{listed(NAMED_SHAPES)}; or null, and a model."
        )


def check_built(config: BenchmarkConfig) -> None:
    """What only the libraries themselves can tell; the quickest to import is asked first.

    Raises:
        UserError: A device that is not there, a value that the benchmark does not take, a model
            that cannot be loaded as was set, a layer that it lacks.
    """
    from es2_lightning.backbone.devices import choose_device

    choose_device(config.device)
    benchmark = build(config.benchmark, "benchmark")
    if config.model.shape is not None:
        return
    from es2_lightning.backbone.loading import read_depth

    depth = read_depth(config.model)
    if isinstance(benchmark, StepBenchmark):
        benchmark.layer_of(depth)
