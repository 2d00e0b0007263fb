"""The scaling benchmark: what is set of it. Light to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from es2_lightning.errors import UserError
from es2_lightning.training.scaling.hardware import Cluster

if TYPE_CHECKING:
    from es2_lightning.backbone.settings import ModelSettings
    from es2_lightning.training.scaling.communication import Strategy
    from es2_lightning.training.scaling.predict import Job
    from es2_lightning.training.scaling.results import ScalingResult
    from es2_lightning.training.settings import StepSettings

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""
STRATEGIES = ("ddp", "fsdp")


class ScalingBenchmark:
    """A step on CPU processes, measured, and on clusters, predicted.

    Args:
        clusters: Name to the values of `Cluster`.
        models: Names of `NAMED_SHAPES` that are predicted.
        strategies: Of `ddp` and `fsdp`.
        processes: Numbers of processes that share the measured batch.
        harmless: Prompts of the measured batch, of all processes together.
        harmful: The same.
        steps: How many are timed.
        harmless_each: Prompts of each device of a cluster.
        harmful_each: The same.
        training_prompts: Harmless ones of a run, whose reference outputs are cached.
        seed: Of weights and tokens.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self,
        *,
        clusters: Mapping[str, Mapping[str, Any]],
        models: Sequence[str],
        strategies: Sequence[str] = STRATEGIES,
        processes: Sequence[int] = (1, 2),
        harmless: int = 16,
        harmful: int = 4,
        steps: int = 5,
        harmless_each: int = 7,
        harmful_each: int = 2,
        training_prompts: int = 10_000,
        seed: int = 0,
    ) -> None:
        from es2_lightning.training.cost.named_shapes import NAMED_SHAPES

        numbers = {
            "steps": steps,
            "harmless_each": harmless_each,
            "harmful_each": harmful_each,
            "training_prompts": training_prompts,
        }
        for name, value in numbers.items():
            if value < 1:
                raise UserError(f"benchmark.{name}={value}: at least 1 is needed")
        if unknown := [name for name in strategies if name not in STRATEGIES]:
            raise UserError(
                f"benchmark.strategies: {unknown[0]} is none; accepted are {', '.join(STRATEGIES)}"
            )
        if unknown := [name for name in models if name not in NAMED_SHAPES]:
            raise UserError(
                f"benchmark.models: {unknown[0]} is none; accepted are {', '.join(NAMED_SHAPES)}"
            )
        if not processes or min(processes) < 1:
            raise UserError("benchmark.processes: accepted is a list of numbers, each at least 1")
        for name, value in (("harmless", harmless), ("harmful", harmful)):
            if value < max(processes):
                raise UserError(
                    f"benchmark.{name}={value}: each of {max(processes)} processes needs one"
                )
        self.clusters = [Cluster(name=name, **_values(name, of)) for name, of in clusters.items()]
        self.models = tuple(models)
        self.strategies = cast("tuple[Strategy, ...]", tuple(strategies))
        self.processes = tuple(processes)
        self.harmless, self.harmful = harmless, harmful
        self.steps = steps
        self.harmless_each, self.harmful_each = harmless_each, harmful_each
        self.training_prompts = training_prompts
        self.seed = seed

    def __call__(
        self,
        settings: ModelSettings,
        *,
        shape: str,
        step: StepSettings,
        threads: int,
        only_predict: bool = False,
        progress: Progress = lambda _stage, _done, _of: None,
    ) -> ScalingResult:
        """Measure, then predict.

        Args:
            settings: Of the adapter and the reference.
            shape: A name of `NAMED_SHAPES`, that is measured.
            step: How a step is computed.
            threads: CPU threads of each process.
            only_predict: Start no processes.
            progress: Told how far it is.

        Raises:
            RuntimeError: The processes failed.
        """
        from es2_lightning.training.scaling.measure import measure_processes
        from es2_lightning.training.scaling.predict import predict
        from es2_lightning.training.scaling.results import ScalingResult

        runs = [(s, n) for s in self.strategies for n in self.processes]
        measured = []
        for done, (strategy, number) in enumerate([] if only_predict else runs):
            progress(f"{strategy}, processes: {number}", done, len(runs))
            measured.append(
                measure_processes(
                    self,
                    settings,
                    shape=shape,
                    step=step,
                    threads=threads,
                    strategy=strategy,
                    processes=number,
                )
            )
        jobs = [self.job(model, settings, step) for model in self.models]
        return ScalingResult(
            model=shape,
            threads=threads,
            each=(self.harmless_each, self.harmful_each),
            reference=settings.reference,
            measured=tuple(measured),
            predicted=tuple(
                predict(job, cluster, strategy)
                for job in jobs
                for cluster in self.clusters
                for strategy in self.strategies
            ),
        )

    def job(self, model: str, settings: ModelSettings, step: StepSettings) -> Job:
        """What each device of a cluster computes, of one model."""
        from es2_lightning.training.cost.named_shapes import NAMED_SHAPES
        from es2_lightning.training.cost.step_plan import LoraShape, StepPlan, batch_rows
        from es2_lightning.training.scaling.predict import Job
        from es2_lightning.training.step_benchmark.lengths import built_in_lengths

        shape, lora = NAMED_SHAPES[model], settings.lora
        lengths = built_in_lengths(harmless=self.harmless_each, harmful=self.harmful_each)
        dropped = lora.lora_dropout > 0
        shares = step.shared_prefix == "always" or (step.shared_prefix == "auto" and not dropped)
        cached = settings.reference == "cached"
        return Job(
            model=model,
            shape=shape,
            rows=batch_rows(
                lengths.harmless,
                lengths.harmful,
                layer=layer_of(shape.num_layers),
                num_layers=shape.num_layers,
            ),
            plan=StepPlan(
                truncate=step.truncate,
                layout="off" if step.packing == "off" else "grid",
                prefix=lengths.prefix if shares and step.packing != "off" else 0,
                reference="cached" if cached else "adapter",
                hold=cast(Literal["hidden_states", "statistics"], settings.reference_cache.hold),
                kl_chunk=step.kl_chunk,
                lean_norms=step.lean_norms,
            ),
            lora=LoraShape(lora.r, shape.adapted(lora.target_modules), dropout=dropped),
            cached_positions=self.training_prompts * sum(lengths.harmless) // self.harmless_each,
        )


def layer_of(depth: int) -> int:
    """The layer that is separated, 1 … L: about L/3, where refusal emerges."""
    return max(1, depth // 3)


def _values(name: str, of: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {key for key in Cluster.__dataclass_fields__ if key != "name"}
    if wrong := sorted(wanted ^ set(of)):
        raise UserError(
            f"benchmark.clusters.{name}: {wrong[0]} is "
            f"{'missing' if wrong[0] in wanted else 'no key'}; needed are "
            f"{', '.join(sorted(wanted))}"
        )
    return dict(of)
