"""Parse the precision given on the command line."""

from __future__ import annotations

from gptkit.core.spec import Spec
from gptkit.files.options import parse_option
from gptkit.kinds.precision import PrecisionSpec

__all__ = ["parsed"]


class _Holder(Spec):
    precision: PrecisionSpec


def parsed(text: str) -> PrecisionSpec:
    """Return a precision from its name, or from a YAML mapping with its fields.

    Raises:
        SpecError: the precision is invalid.
    """
    return parse_option(_Holder, "precision", text, f"--precision {text}").precision
