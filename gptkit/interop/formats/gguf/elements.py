"""The element types in which the tensors of a model are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.blocks import BLOCKS
from gptkit.interop.formats.gguf.container import Element, Packed

__all__ = ["FILE_TYPES", "ElementOf", "Type", "elements_of", "plain_elements"]

Type = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"]
FILE_TYPES: Mapping[str, int] = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_k": 15, "q6_k": 18}
"""Values of `general.file_type`."""
ElementOf = Callable[[str, tuple[int, ...]], Element]
"""Function that returns the element type of a tensor, for its name in the file and its shape."""

_PLAIN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_VOCABULARY = ("token_embd.weight", "output.weight")
_FINER = {"q4_0": "q8_0", "q4_k": "q6_k"}
"""The type of the embedding and of the output matrix, whose errors affect every token."""
_NARROWER = {"q4_k": "q8_0", "q6_k": "q8_0"}
"""The type of matrices whose rows are not a multiple of the block length."""


def elements_of(type: Type) -> ElementOf:
    """Return the function for a type of matrices.

    As in the files of llama.cpp, the embedding and the output matrix have more bits than the others where these have 4, and
    a matrix whose rows are not a multiple of the block length has a type of shorter blocks, or f16.
    """
    if type in _PLAIN:
        return plain_elements(_PLAIN[type])
    others = plain_elements(torch.float16)

    def element(name: str, shape: tuple[int, ...]) -> Element:
        plain = others(name, shape)
        if plain != torch.float16:
            return plain
        chosen: str | None = _FINER.get(type, type) if name in _VOCABULARY else type
        while chosen is not None and shape[-1] % BLOCKS[chosen].length:
            chosen = _NARROWER.get(chosen)
        return plain if chosen is None else packed(chosen, name, shape)

    return element


def plain_elements(matrices: torch.dtype) -> ElementOf:
    """Return the function for unquantized tensors, with the dtype of matrices."""

    def element(name: str, shape: tuple[int, ...]) -> torch.dtype:
        return torch.float32 if len(shape) == 1 or _single(name) else matrices

    return element


def _single(name: str) -> bool:
    """Return whether llama.cpp requires a tensor in f32, or keeps it so.

    It adds biases and learned positions to activations in f32, multiplies by the weights of norms in f32 (those of single
    heads are matrices), and convolves in f32, as it computes decays; routers decide between experts.
    """
    stem, _, leaf = name.rpartition(".")
    return (
        leaf in ("bias", "ssm_a", "ssm_d")
        or stem.endswith("_norm")
        or stem.rpartition(".")[2] in ("position_embd", "ssm_conv1d", "conv", "ffn_gate_inp", "ffn_gate_inp_shexp")
    )


def packed(type: str, name: str, shape: tuple[int, ...]) -> Packed:
    """Return the quantized type for a tensor."""
    blocks = BLOCKS[type]
    n_blocks = math.prod(shape) // blocks.length
    return Packed(blocks.number, n_blocks * blocks.n_bytes, partial(_pack, type, name))


def _pack(type: str, name: str, tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor's blocks."""
    blocks = BLOCKS[type]
    x_NL = tensor.detach().to("cpu", torch.float32).reshape(-1, blocks.length)
    if not bool(torch.isfinite(x_NL).all()):
        raise ExternalModelError(f"{name} has numbers that are not finite", hint="Export with --type f32.")
    largest = 60000.0 * blocks.levels
    if x_NL.numel() and float(x_NL.abs().max()) > largest:
        raise ExternalModelError(f"{name} has numbers that {type} cannot hold", hint="Export with --type f32.")
    # Blocks are independent; parts bound the memory of the search for their steps.
    parts = [blocks.pack(part) for part in torch.split(x_NL, max(1, 2**22 // blocks.length))]
    return torch.cat(parts).view(-1) if parts else torch.empty(0, dtype=torch.uint8)
