"""Writing of a model as a GGUF file, as llama.cpp and the programs built on it load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.checking import expected_tensors
from gptkit.interop.conversion import Move, external_tensors, pair_by, read_model
from gptkit.interop.differences import differences
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.container import Element, n_bytes, write_gguf
from gptkit.interop.formats.gguf.elements import FILE_TYPES, ElementOf, Type, elements_of
from gptkit.interop.formats.gguf.frequencies import FREQUENCIES, rope_factors
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.model import architectures, read_config
from gptkit.interop.formats.gguf.parts import HINT
from gptkit.interop.formats.gguf.spelling import write_vocabulary
from gptkit.interop.selection import choose_family
from gptkit.interop.tensor_files import counted
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import NativeModel, Progress
from gptkit.model.gpt import GPT

__all__ = ["write_model"]

_Entries = Mapping[str, tuple[tuple[int, ...], Element]]


def write_model(
    model: NativeModel,
    file: Path,
    *,
    type: Type = "f32",
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
    plan = _plan(model, family, type, registry)
    rows, architecture, factors = model.spec.vocab_size, plan.architecture, plan.factors
    metadata = dict(plan.metadata)
    metadata |= write_vocabulary(model.tokenizer, rows, model.start_id) if vocabulary is None else vocabulary
    choose = elements or elements_of(type)
    entries = {name: (shape, choose(name, shape)) for name, shape in plan.shapes.items()}
    if factors is not None:
        entries[FREQUENCIES] = (tuple(factors.shape), torch.float32)
    total = sum(n_bytes(shape, element) for shape, element in entries.values())
    tensors = _tensors(plan.moves, model, factors)
    write_gguf(file, metadata, entries, _representable(tensors, entries), counted(total, progress))
    remark = architecture.remark(plan.config)
    return [remark] if remark else []


@dataclass(frozen=True)
class _Plan:
    """What a file has besides the tokenizer and the numbers.

    Attributes:
        architecture: its architecture.
        config: the family's configuration.
        moves: the native tensors and those of the file.
        shapes: the shapes of the file's tensors, by name.
        metadata: the keys.
        factors: the divisors of the rotary frequencies; None without them.
    """

    architecture: Architecture
    config: Mapping[str, Any]
    moves: Sequence[Move]
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, Typed]
    factors: Tensor | None


def _plan(model: NativeModel, family: str | None, type: Type, registry: Registry | None) -> _Plan:
    """Return the plan of the first family whose architecture expresses the model.

    Raises:
        ExternalModelError: none does; gives the reason of the first one that can express the model apart from llama.cpp.
    """
    declared = {each.component_name(): own for pairs in architectures(registry).values() for own, each in pairs}
    wanted, only = family or model.family, family is not None
    refusal: ExternalModelError | None = None
    while True:
        try:
            chosen, config = choose_family(model.spec, wanted, only=only, among=declared, registry=registry)
        except ExternalModelError as error:
            raise refusal or (error if only else _unsupported(model, error, registry)) from None
        architecture = declared.pop(chosen.component_name())
        try:
            return _plan_as(model, chosen, architecture, config, type, registry)
        except ExternalModelError as error:
            refusal = refusal or error
            if only or not declared:
                raise refusal from None


def _unsupported(model: NativeModel, error: ExternalModelError, registry: Registry | None) -> ExternalModelError:
    """Return the error for a model that no family with an architecture expresses; `error` names the closest of these."""
    try:
        chosen, _ = choose_family(model.spec, model.family, registry=registry)
    except ExternalModelError:
        return ExternalModelError(error.message, hint=HINT)
    name = chosen.component_name()
    return ExternalModelError(f"GGUF files of the family {name!r}, which this model has, are not supported", hint=HINT)


def _plan_as(
    model: NativeModel,
    chosen: FamilySpec,
    architecture: Architecture,
    config: Mapping[str, Any],
    type: Type,
    registry: Registry | None,
) -> _Plan:
    """Return the plan for a family, if reading the keys gives the same model."""
    rows, name = model.spec.vocab_size, architecture.name
    written = architecture.write(config)
    moves = pair_by(architecture.rules(model.spec), GPT(model.spec, device="meta"), f"GGUF's architecture {name!r}")
    shapes = {stored: tuple(part.shape) for stored, part in expected_tensors(moves).items()}
    factors = rope_factors(config) if architecture.frequencies else None
    metadata = {
        "general.architecture": Typed("string", name),
        "general.name": Typed("string", model.name),
        "general.file_type": Typed("u32", FILE_TYPES[type]),
        **{f"{name}.{key}": value for key, value in written.items()},
        f"{name}.vocab_size": Typed("u32", rows),
    }
    plain = {key: typed.value for key, typed in metadata.items()}
    read_back = read_config(architecture, plain, set(shapes), rows, "the file", factors)
    result = differences(model.spec, read_model(chosen, read_back, "the file", registry))
    if result:
        raise ExternalModelError(
            f"GGUF's architecture {name!r} cannot express this model: {'; '.join(result[:4])}", hint=HINT
        )
    return _Plan(architecture, config, moves, shapes, metadata, factors)


def _tensors(moves: Sequence[Move], model: NativeModel, factors: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    yield from external_tensors(moves, model.tensors)
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
