"""The samplers of llama.cpp, called in the shared library of the package xllamacpp.

Shapes: V vocabulary.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

__all__ = ["Sampler", "dry", "library"]

_DRY_TESTING = "_Z30llama_sampler_init_dry_testingffiiRKSt6vectorIS_IiSaIiEESaIS1_EE"


_FIELDS = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


class _TokenArray(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    ]


class _Vector(ctypes.Structure):
    """std::vector of libstdc++: begin, end, and end of the storage."""

    _fields_ = [("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("storage", ctypes.c_void_p)]


@cache
def library() -> ctypes.CDLL:
    """Return the library; skip the test where the package is not installed or does not export the samplers."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        pytest.skip("needs llama.cpp's samplers: pip install xllamacpp")
    paths = list(Path(spec.origin).parent.glob("xllamacpp*.so"))
    if not paths:
        pytest.skip("xllamacpp has no shared library on this platform")
    loaded = ctypes.CDLL(str(paths[0]))
    if not hasattr(loaded, "llama_sampler_init_dist"):
        pytest.skip("xllamacpp's library does not export llama.cpp's samplers")
    for name in ("apply", "accept", "free", "reset"):
        getattr(loaded, f"llama_sampler_{name}").restype = None
    return loaded


class Sampler:
    """A sampler of llama.cpp.

    Args:
        name: its function without the prefix ``llama_sampler_init_``, or a mangled name.
        arguments: ctypes values.
    """

    def __init__(self, name: str, *arguments: object) -> None:
        function = library()[name] if name.startswith("_Z") else library()[f"llama_sampler_init_{name}"]
        function.restype = ctypes.c_void_p
        self._pointer = ctypes.c_void_p(function(*arguments))

    def __del__(self) -> None:
        library().llama_sampler_free(self._pointer)

    def accept(self, token: int) -> None:
        library().llama_sampler_accept(self._pointer, ctypes.c_int32(token))

    def __call__(self, logits_V: Tensor) -> tuple[Tensor, int]:
        """Return the changed logits, -inf for removed tokens, and the id of the token that it selected (-1 for none)."""
        ids = (logits_V > -torch.inf).nonzero().flatten().numpy()
        data = np.zeros(len(ids), dtype=_FIELDS)
        data["id"], data["logit"] = ids, logits_V.numpy()[ids]
        begin = data.ctypes.data
        array = _TokenArray(begin, len(ids), -1, False)
        library().llama_sampler_apply(self._pointer, ctypes.byref(array))
        # A sampler may move the beginning of the array.
        left = data[(array.data - begin) // data.itemsize :][: array.size]
        out_V = torch.full_like(logits_V, -torch.inf)
        out_V[torch.from_numpy(left["id"].astype(np.int64))] = torch.from_numpy(left["logit"].copy())
        return out_V, int(left["id"][array.selected]) if array.selected >= 0 else -1


def dry(multiplier: float, base: float, allowed_length: int, window: int, breakers: Sequence[Sequence[int]]) -> Sampler:
    """Return llama.cpp's DRY sampler with breakers that are given as sequences of tokens."""
    arrays = [(ctypes.c_int32 * len(breaker))(*breaker) for breaker in breakers]
    inner = (_Vector * len(arrays))()
    for vector, array in zip(inner, arrays, strict=True):
        begin = ctypes.addressof(array)
        vector.begin, vector.end, vector.storage = begin, begin + ctypes.sizeof(array), begin + ctypes.sizeof(array)
    begin = ctypes.addressof(inner)
    outer = _Vector(begin, begin + ctypes.sizeof(inner), begin + ctypes.sizeof(inner))
    numbers = ctypes.c_float(multiplier), ctypes.c_float(base), ctypes.c_int32(allowed_length), ctypes.c_int32(window)
    if not hasattr(library(), _DRY_TESTING):
        pytest.skip("this llama.cpp does not export the constructor of its DRY tests")
    return Sampler(_DRY_TESTING, *numbers, ctypes.byref(outer))
