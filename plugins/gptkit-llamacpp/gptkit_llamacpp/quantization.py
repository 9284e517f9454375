"""Quantization of weights by ggml, the tensor library of llama.cpp."""

from __future__ import annotations

import ctypes
import math
from functools import cache, partial
from pathlib import Path

import torch
import xllamacpp
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.container import Element, Packed
from gptkit.interop.formats.gguf.elements import ElementOf, plain_elements

__all__ = ["elements"]

_PLAIN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def elements(type: str) -> ElementOf:
    """Return the function for the element types of a model's tensors.

    As in the files of llama.cpp, the output matrix (and the embedding, which it may be tied to) is kept at 8 bits where the
    others have fewer, and matrices whose rows are not a multiple of the block length are f16.
    """
    if type in _PLAIN:
        return plain_elements(_PLAIN[type])
    others = plain_elements(torch.float16)

    def element(name: str, shape: tuple[int, ...]) -> Element:
        plain = others(name, shape)
        number = _number("q8_0" if name in ("output.weight", "token_embd.weight") else type)
        if plain != torch.float16 or shape[-1] % _library().ggml_blck_size(number):
            return plain
        row = _library().ggml_row_size(number, shape[-1])
        return Packed(number, math.prod(shape[:-1]) * row, partial(_pack, number, row))

    return element


def _number(type: str) -> int:
    return int(getattr(xllamacpp.ggml_type, f"GGML_TYPE_{type.upper()}"))


def _pack(number: int, row: int, tensor: Tensor) -> Tensor:
    source = tensor.to("cpu", torch.float32).contiguous()
    n_rows = source.numel() // source.shape[-1]
    packed = torch.empty(n_rows * row, dtype=torch.uint8)
    _library().ggml_quantize_chunk(number, source.data_ptr(), packed.data_ptr(), 0, n_rows, source.shape[-1], None)
    return packed


@cache
def _library() -> ctypes.CDLL:
    """Return the shared library of xllamacpp, whose Python part does not offer quantization."""
    paths = list(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")) + list(Path(xllamacpp.__file__).parent.glob("*.pyd"))
    library = ctypes.CDLL(str(paths[0])) if paths else None
    if library is None or not hasattr(library, "ggml_quantize_chunk"):
        raise ExternalModelError(
            "this version of xllamacpp does not export ggml's quantization", hint="Use the type f16, or another version."
        )
    library.ggml_blck_size.argtypes, library.ggml_blck_size.restype = [ctypes.c_int], ctypes.c_int64
    library.ggml_row_size.argtypes, library.ggml_row_size.restype = [ctypes.c_int, ctypes.c_int64], ctypes.c_size_t
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library
