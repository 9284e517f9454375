"""Conversion of a run to one whose weights are stored in a precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from gptkit.checkpoint.safetensors import save_tensors
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry, default_registry
from gptkit.kinds.format import Progress
from gptkit.model.calibration import Calibration
from gptkit.model.merging import has_adapters, merged_spec
from gptkit.model.packing import slots
from gptkit.runs.calibrating import require_calibrated
from gptkit.runs.directory import RunDirectory
from gptkit.runs.opening import Opened
from gptkit.runs.precisions import PrecisionLike, precision_of, require_original
from gptkit.runs.quantized import parts, quantized_tensors
from gptkit.runs.run import Run, load
from gptkit.runs.saving import require_allowed, write_run

__all__ = ["quantize_run", "require_target"]


def quantize_run(
    run: str | Path | Run,
    path: str | Path,
    precision: PrecisionLike,
    *,
    calibration: Calibration | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Path:
    """Write a run with the weights of another one in a precision, to be loaded and generated with, but not trained.

    ::

        gptkit.quantize_run("runs/gpt", "runs/gpt-int4", "int4")

    Its files take about the memory of the weights in this precision. Adapters are merged.

    Args:
        run: the run, or its directory.
        path: the directory of the new run.
        precision: the precision: its name, its fields, or a spec.
        calibration: the result of `gptkit.calibrate_run`, whose matrices are written.
        overwrite: replace the run in the directory when the new one is complete.
        progress: receives the number of matrices that are converted, and of all.
        registry: where components are looked up; by default what is installed.

    Returns:
        The run directory.

    Raises:
        SpecError: the precision is invalid.
        GptkitError: the weights are already in a precision, or the directory is that of the run itself.
        CheckpointError: the directory holds a run already or other files, or another process writes into it.
    """
    chosen = precision_of(precision, registry)
    source = run if isinstance(run, Run) else load(run, device="cpu", registry=registry)
    require_original(source)
    require_target(source, path, overwrite)
    require_calibrated(calibration, chosen)
    spec = source.spec
    if has_adapters(spec.model):
        training = spec.training.model_copy(update={"freeze": None})
        spec = spec.model_copy(update={"model": merged_spec(spec.model), "training": training})
    ready = None if calibration is None else calibration.stored
    total = sum(1 for _ in slots(source.model)) + 1

    def write(file: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for count, (_, some) in enumerate(quantized_tensors(source.model, chosen, ready), 1):
            tensors |= some
            if progress is not None:
                progress(count, total)
        save_tensors(tensors, file, {"format": "pt"})

    used = [*spec.components(), *parts(chosen)]
    notes: dict[str, Any] = {key: source.provenance[key] for key in ("imported",) if key in source.provenance}
    notes["components"] = (registry or default_registry()).provenance(used)
    base = Path(source.provenance.get("base", ".")).absolute()
    quantized: dict[str, Any] = {"precision": chosen.model_dump(mode="json")}
    quantized |= {"source": str(source.directory), "step": source.step}
    if calibration is not None:
        quantized["calibration"] = {"tokens": calibration.tokens, "rounded": dict(calibration.rounded)}
    return write_run(
        RunDirectory(path),
        Opened(spec, base),
        source.tokenizer,
        write,
        overwrite=overwrite,
        registry=registry,
        state={"quantized": quantized},
        **notes,
    )


def require_target(source: Run, path: str | Path, overwrite: bool) -> None:
    """Check, before anything is computed, that a quantized run may be written to a directory.

    Raises:
        GptkitError: it is that of the run itself, whose weights the quantized run does not have.
        CheckpointError: it holds a run already, without `overwrite`, or other files.
    """
    if Path(path).resolve() == source.directory.resolve():
        raise GptkitError(
            f"{path} is the run that is quantized: its weights would be replaced by those of fewer bits, and be lost",
            hint="Write the quantized run to another directory.",
        )
    require_allowed(RunDirectory(path), overwrite)
