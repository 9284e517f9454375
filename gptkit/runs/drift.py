"""Comparison of a run with the external model that it was imported from, or should equal."""

from __future__ import annotations

from pathlib import Path

from gptkit.core.registry import Registry
from gptkit.interop.compare import TOLERANCE, Drift, Reading, compare
from gptkit.interop.compare_composed import compare_composed
from gptkit.interop.generated import generated_family
from gptkit.interop.selection import detect_format
from gptkit.runs.run import load

__all__ = ["Drift", "Reading", "measure_drift"]


def measure_drift(
    run: str | Path,
    against: str | Path,
    *,
    n_tokens: int = 64,
    tolerance: float = TOLERANCE,
    step: int | None = None,
    registry: Registry | None = None,
) -> Drift:
    """Run the same tokens through a run and through an external model, both in fp32.

    Args:
        run: the run directory.
        against: the external model, in any installed format.
        n_tokens: number of tokens; more than any attention window, to test windows.
        tolerance: maximum relative difference of equal parts.
        step: the step of the run's checkpoint; the newest by default.
        registry: where formats, families and components are looked up; by default what is installed.

    Raises:
        RequirementError: transformers, which computes the external model, is not installed.
        ExternalModelError: transformers cannot load the model, or the two have different numbers of layers or features.
        CheckpointError: the directory is not a run.
    """
    path = Path(against)
    external = detect_format(path, registry=registry).read(path, registry)
    native = load(run, step=step, device="cpu", registry=registry).model.float()
    # The code of an export is not executed; its spec and weights are those of a composed model.
    comparison = compare if generated_family(external) is None else compare_composed
    return comparison(native, external, n_tokens=n_tokens, tolerance=tolerance, registry=registry)
