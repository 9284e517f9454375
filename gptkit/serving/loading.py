"""Loading of the runs that are served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from gptkit.core.errors import GptkitError
from gptkit.kinds.engine import EngineSpec
from gptkit.kinds.sampler import SamplerSpec
from gptkit.runs.engines import engine_context, engine_with
from gptkit.runs.precisions import PrecisionLike
from gptkit.runs.run import load
from gptkit.serving.engine import AsyncEngine
from gptkit.serving.metrics import Metrics, ModelMetrics
from gptkit.serving.model import ServedModel

__all__ = ["load_model", "model_names"]


def model_names(directories: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return the name of each run in requests: those given, or else the names of the directories.

    Raises:
        GptkitError: the number of names differs from that of the runs, a name is empty, or two runs have the same name.
    """
    if names and len(names) != len(directories):
        raise GptkitError(f"{len(directories)} runs, but {len(names)} names", hint="Give one --name for each run, or none.")
    result = list(names) or [directory.resolve().name for directory in directories]
    if not all(name.strip() for name in result):
        raise GptkitError("a model's name is empty", hint="Give a name, as in --name my-model.")
    double = next((name for name in result if result.count(name) > 1), None)
    if double is not None:
        raise GptkitError(f"two runs have the name {double!r}", hint="Give each run its own name: --name one --name other.")
    return result


def load_model(
    directory: Path,
    name: str,
    engine: EngineSpec,
    metrics: Metrics,
    *,
    max_batch: int = 8,
    max_queue: int = 64,
    sampler: tuple[SamplerSpec, ...] | None = None,
    step: int | None = None,
    precision: PrecisionLike | None = None,
) -> ServedModel:
    """Return a run that is ready to be served.

    Args:
        directory: the run directory.
        name: its name in requests.
        engine: what computes it.
        metrics: the metrics of the server.
        max_batch: maximum number of requests that run at the same time.
        max_queue: maximum number of requests that wait.
        sampler: the samplers of requests that choose none; those of the run by default.
        step: the step of the checkpoint; the latest by default.
        precision: convert the weights for inference, as for `gptkit.load`.

    Raises:
        GptkitError: the run cannot be loaded, or the engine cannot compute it.
    """
    engine = engine_with(engine, precision=precision is not None)
    run = load(directory, step=step, precision=precision)
    runtime = engine.build(engine_context(run, max_batch))
    return ServedModel(
        name=name,
        engine=AsyncEngine(runtime, max_queue=max_queue, listener=ModelMetrics(metrics, name), name=f"engine-{name}"),
        sampler=run.spec.sampler if sampler is None else sampler,
        ends=tuple(run.ends),
        created=int(time.time()),
    )
