"""A precision in any form that users write, as a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.kinds.precision import PrecisionSpec

__all__ = ["PrecisionLike", "precision_of"]

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
