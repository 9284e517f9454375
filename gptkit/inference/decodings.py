"""Decodings given in Python: a spec, a name or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.kinds.decoding import DecodingSpec

__all__ = ["DecodingLike", "decoding_spec"]

DecodingLike = DecodingSpec | str | Mapping[str, Any]
"""A spec, a name such as ``"beam"``, or fields such as ``{"name": "beam", "width": 8}``."""


class _Decoding(Spec):
    decoding: DecodingSpec


def decoding_spec(decoding: DecodingLike) -> DecodingSpec:
    """Return the validated decoding.

    Raises:
        SpecError: the name is unknown, or a field is invalid.
    """
    if isinstance(decoding, DecodingSpec):
        return decoding
    return validate_data({"decoding": decoding if isinstance(decoding, str) else dict(decoding)}, _Decoding).decoding
