"""A precision in any form that users write, as a spec; and whether a run can be converted to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.kinds.precision import PrecisionSpec

if TYPE_CHECKING:
    from gptkit.runs.run import Run

__all__ = ["PrecisionLike", "precision_of", "require_original"]

PrecisionLike = str | Mapping[str, Any] | PrecisionSpec
"""A precision, its fields with a `name`, or its name."""


class _Chosen(Spec):
    precision: PrecisionSpec


def precision_of(value: PrecisionLike, registry: Registry | None = None) -> PrecisionSpec:
    """Return the precision.

    Raises:
        SpecError: it is invalid, or no component has its name.
    """
    if isinstance(value, PrecisionSpec):
        return value
    return validate_data({"precision": dict(value) if isinstance(value, Mapping) else value}, _Chosen, registry).precision


def require_original(run: Run) -> None:
    """Raise an error if the weights of a run are already stored or loaded in a precision.

    Raises:
        GptkitError: they are; names the precision.
    """
    if run.model.precision is not None:
        raise GptkitError(
            f"the weights of {run.directory} are already in precision {run.model.precision.name!r}",
            hint="Quantize the run that it was made from.",
        )
