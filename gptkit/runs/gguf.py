"""A run becomes a GGUF file, as llama.cpp and what is built on it load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gptkit.checkpoint.entries import MODEL
from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.core.atomic import writing
from gptkit.core.errors import CheckpointError, ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import Move, differences, pair, read_model
from gptkit.interop.formats.gguf.architectures import ARCHITECTURES, FREQUENCIES, Architecture, permute, rope_factors
from gptkit.interop.formats.gguf.container import Typed, write_gguf
from gptkit.interop.formats.gguf.model import read_config
from gptkit.interop.formats.gguf.spelling import write_vocabulary
from gptkit.interop.tensor_files import TensorFiles
from gptkit.model.gpt import GPT
from gptkit.runs.exporting import choose_family
from gptkit.runs.folder import RunFolder
from gptkit.runs.run import load_tokenizer

__all__ = ["export_gguf"]

_DTYPES = {"f32": (torch.float32, 0), "f16": (torch.float16, 1)}
"""By name: what matrices are written as, and what `general.file_type` says."""


def export_gguf(
    run: str | Path,
    file: str | Path,
    *,
    type: Literal["f32", "f16"] = "f32",
    family: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Path:
    """Write a run's newest weights, with its tokenizer, to a GGUF file.

    Args:
        run: the run's folder.
        file: the file to write.
        type: what matrices are written as; vectors are always f32.
        family: as which of llama, qwen2, qwen3 and gpt2; by default one that can express the model.
        progress: told how many bytes of how many are written.
        registry: where families and components are looked up; by default what is installed.

    Returns:
        The file.

    Raises:
        ExternalModelError: llama.cpp cannot express the model or its tokenizer; says what stands in the way.
        CheckpointError: there is no such run, or it has no checkpoint.
    """
    there, target = RunFolder(run), Path(file)
    spec = there.read_spec(registry)
    latest = CheckpointStore(there.checkpoints).latest()
    if latest is None:
        raise CheckpointError(f"{there.path} has no checkpoint yet", hint="Resume the training until it saves one.")
    read_state(latest)
    if target.exists() or target.is_symlink():
        raise ExternalModelError(f"{target} is there already", hint="Choose another name, or remove it.")
    files = TensorFiles(latest / MODEL)
    rows = files.entries["embedding.table.weight"].shape[0]
    model = spec.model.model_copy(update={"vocab_size": spec.model.vocab_size or rows})
    wanted = family or there.read_provenance().get("imported", {}).get("family")
    chosen, config = choose_family(model, wanted, only=family is not None, among=_families(), registry=registry)
    name, architecture = next((name, each) for name, each in ARCHITECTURES.items() if each.family == chosen.name)

    moves = pair(chosen, GPT(model, device="meta"))
    parts = [(name, part) for move in moves for name, part in zip(move.external, move.split(move.like), strict=True)]
    names = {external: _renamed(architecture, external) for external, _ in parts}
    factors = rope_factors(config)
    metadata = {
        "general.architecture": Typed("string", name),
        "general.name": Typed("string", spec.name),
        "general.file_type": Typed("u32", _DTYPES[type][1]),
        **{
            f"{name}.{key}": typed for key, typed in {**architecture.write(config), "vocab_size": Typed("u32", rows)}.items()
        },
    }
    plain = {key: typed.value for key, typed in metadata.items()}
    read_back = read_config(architecture, plain, set(names.values()), rows, "the file", factors)
    found = differences(model, read_model(chosen, read_back, "the file", registry))
    if found:
        raise ExternalModelError(
            f"GGUF's architecture {name!r} cannot express this model: {'; '.join(found[:4])}",
            hint="Export to hugging-face instead.",
        )
    metadata |= write_vocabulary(load_tokenizer(spec, there), rows)
    shapes = {
        names[external]: tuple(part.shape)[::-1] if _transposed(architecture, names[external]) else tuple(part.shape)
        for external, part in parts
    }
    entries = {each: (shape, _dtype(each, shape, type)) for each, shape in shapes.items()}
    if factors is not None:
        entries[FREQUENCIES] = (tuple(factors.shape), torch.float32)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(moves, files, architecture, names, config, factors)
    write_gguf(target, metadata, entries, _held(numbers, entries), _reporting(entries, progress))
    return target


def _families() -> set[str]:
    return {architecture.family for architecture in ARCHITECTURES.values()}


def _renamed(architecture: Architecture, name: str) -> str:
    found = architecture.renamed(name)
    if found is None:
        raise ExternalModelError(f"GGUF has no place for {name}", hint="Export to hugging-face instead.")
    return found


def _transposed(architecture: Architecture, name: str) -> bool:
    return name.endswith(".weight") and name.split(".")[-2] in architecture.transposed


def _dtype(name: str, shape: tuple[int, ...], type: str) -> torch.dtype:
    # llama.cpp adds vectors and positions to numbers that are f32, and has no other operation for it.
    return torch.float32 if len(shape) == 1 or name.startswith("position_embd") else _DTYPES[type][0]


def _numbers(
    moves: list[Move],
    files: TensorFiles,
    architecture: Architecture,
    names: dict[str, str],
    config: dict[str, Any],
    factors: Tensor | None,
) -> Iterator[tuple[str, Tensor]]:
    for move in moves:
        for external, tensor in zip(move.external, move.split(files.get(move.native)), strict=True):
            name = names[external]
            heads = architecture.rearranged(name)
            if heads is not None:
                tensor = permute(tensor, config[heads])
            yield name, tensor.mT if _transposed(architecture, name) else tensor
    if factors is not None:
        yield FREQUENCIES, factors


def _held(numbers: Iterator[tuple[str, Tensor]], entries: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The numbers in the dtypes that they are written as, with none too large for it."""
    for name, tensor in numbers:
        written = tensor.to(entries[name][1])
        if written.dtype == torch.float16 and bool((written.isinf() & ~tensor.isinf()).any()):
            raise ExternalModelError(f"{name} has numbers that f16 cannot hold", hint="Export with --type f32.")
        yield name, written


def _reporting(entries: dict[str, Any], progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    total = sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in entries.values())
    done = 0

    def report(written: int) -> None:
        nonlocal done
        done += written
        if progress is not None:
            progress(done, total)

    return report
