"""Writing of a model as a GGUF file, as llama.cpp and the programs built on it load it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import Move, external_tensors, pair, read_model
from gptkit.interop.differences import differences
from gptkit.interop.formats.gguf.architecture import FREQUENCIES, Architecture, permute, rope_factors
from gptkit.interop.formats.gguf.container import Element, n_bytes, write_gguf
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.model import architectures, read_config
from gptkit.interop.formats.gguf.spelling import write_vocabulary
from gptkit.interop.selection import choose_family
from gptkit.interop.tensor_files import counted
from gptkit.kinds.format import NativeModel, Progress
from gptkit.model.gpt import GPT

__all__ = ["ElementOf", "plain_elements", "write_model"]

_DTYPES = {"f32": (torch.float32, 0), "f16": (torch.float16, 1)}
"""By name: the dtype of matrices, and the value of `general.file_type`."""

_Entries = Mapping[str, tuple[tuple[int, ...], Element]]
ElementOf = Callable[[str, tuple[int, ...]], Element]
"""Function that returns the element type of a tensor, for its name in the file and its shape."""


def write_model(
    model: NativeModel,
    file: Path,
    *,
    type: Literal["f32", "f16"] = "f32",
    elements: ElementOf | None = None,
    vocabulary: Mapping[str, Typed] | None = None,
    family: str | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Sequence[str]:
    """Write a file.

    Args:
        type: the type of matrices.
        elements: the element type of each tensor, instead of `type`.
        vocabulary: the metadata of the tokenizer, instead of that of the model's tokenizer.
        model, file, family, progress, registry: as for `FormatSpec.write`.
    """
    rows = model.spec.vocab_size
    declared = {each.component_name(): architecture for architecture, each in architectures(registry).values()}
    wanted, only = family or model.family, family is not None
    chosen, config = choose_family(model.spec, wanted, only=only, among=declared, registry=registry)
    architecture = declared[chosen.component_name()]

    moves = pair(chosen, GPT(model.spec, device="meta"))
    shapes = {
        name: tuple(part.shape) for move in moves for name, part in zip(move.external, move.split(move.like), strict=True)
    }
    names = {name: _renamed(architecture, name) for name in shapes}
    factors = rope_factors(config)
    metadata = {
        "general.architecture": Typed("string", architecture.name),
        "general.name": Typed("string", model.name),
        "general.file_type": Typed("u32", _DTYPES[type][1]),
        **{f"{architecture.name}.{key}": value for key, value in architecture.write(config).items()},
        f"{architecture.name}.vocab_size": Typed("u32", rows),
    }
    plain = {key: typed.value for key, typed in metadata.items()}
    read_back = read_config(architecture, plain, set(names.values()), rows, "the file", factors)
    result = differences(model.spec, read_model(chosen, read_back, "the file", registry))
    if result:
        raise ExternalModelError(
            f"GGUF's architecture {architecture.name!r} cannot express this model: {'; '.join(result[:4])}",
            hint="Export to hugging-face instead.",
        )
    metadata |= write_vocabulary(model.tokenizer, rows) if vocabulary is None else vocabulary
    choose = elements or plain_elements(_DTYPES[type][0])
    entries: dict[str, tuple[tuple[int, ...], Element]] = {}
    for name, shape in shapes.items():
        stored = names[name]
        shape = shape[::-1] if _transposed(architecture, stored) else shape
        entries[stored] = (shape, choose(stored, shape))
    if factors is not None:
        entries[FREQUENCIES] = (tuple(factors.shape), torch.float32)
    total = sum(n_bytes(shape, element) for shape, element in entries.values())
    tensors = _tensors(moves, model, architecture, names, config, factors)
    write_gguf(file, metadata, entries, _representable(tensors, entries), counted(total, progress))
    return []


def _renamed(architecture: Architecture, name: str) -> str:
    result = architecture.renamed(name)
    if result is None:
        raise ExternalModelError(
            f"GGUF's architecture {architecture.name!r} has no name for {name}", hint="Export to hugging-face instead."
        )
    return result


def _transposed(architecture: Architecture, name: str) -> bool:
    return name.endswith(".weight") and name.split(".")[-2] in architecture.transposed


def plain_elements(matrices: torch.dtype) -> ElementOf:
    """Return the function for unquantized tensors, with the dtype of matrices."""

    def element(name: str, shape: tuple[int, ...]) -> torch.dtype:
        # llama.cpp adds vectors and learned positions to activations in f32, and has no other operation for it.
        return torch.float32 if len(shape) == 1 or name.startswith("position_embd") else matrices

    return element


def _tensors(
    moves: Sequence[Move],
    model: NativeModel,
    architecture: Architecture,
    names: Mapping[str, str],
    config: Mapping[str, Any],
    factors: Tensor | None,
) -> Iterator[tuple[str, Tensor]]:
    for external, tensor in external_tensors(moves, model.tensors):
        name = names[external]
        heads = architecture.rearranged(name)
        arranged = tensor if heads is None else permute(tensor, config[heads])
        yield name, arranged.mT if _transposed(architecture, name) else arranged
    if factors is not None:
        yield FREQUENCIES, factors


def _representable(tensors: Iterator[tuple[str, Tensor]], entries: _Entries) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in the dtypes in which they are written; raise where an element overflows."""
    for name, tensor in tensors:
        element = entries[name][1]
        written = tensor.to(element) if isinstance(element, torch.dtype) else tensor
        if element == torch.float16 and bool((written.isinf() & ~tensor.isinf()).any()):
            raise ExternalModelError(f"{name} has numbers that f16 cannot hold", hint="Export with --type f32.")
        yield name, written
