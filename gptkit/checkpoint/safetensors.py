"""Model weights in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import JSONDecodeError
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptkit.checkpoint.reader import TensorReader
from gptkit.checkpoint.sharding import copy_sharded, part_of, whole_of, whole_shape
from gptkit.core.atomic import new_file_mode, reading, writing
from gptkit.core.errors import CheckpointError, FileError
from gptkit.core.paths import require_utf8
from gptkit.nn.index_limits import index_limits, index_problem

__all__ = [
    "cause",
    "damaged",
    "fill",
    "fill_tensors",
    "named_tensors",
    "read_tensors",
    "remedy",
    "require_fit",
    "save_tensors",
    "stored_tensors",
    "weights",
]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, tied ones under each of their names."""
    return dict(model.state_dict(keep_vars=True))


# -- weights --------------------------------------------------------------------------------------------------


def stored_tensors(model: nn.Module, replaced: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors that a file stores, tied ones once, as the model holds them; arguments as for `weights`."""
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in named_tensors(model).items():
        if id(tensor) not in seen:
            # Tied: the model restores it under its other name when loading.
            kept[name] = tensor if replaced is None else replaced.get(name, tensor)
            seen.add(id(tensor))
    return kept


def weights(model: nn.Module, replaced: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a model as a file stores them: tied ones once, each in separate memory.

    Args:
        model: the model.
        replaced: tensors to store in place of the model's, by name (averaged weights, for example).
    """
    kept: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, tensor in stored_tensors(model, replaced).items():
        stored = whole_of(model, name, tensor)
        kept[name] = stored.clone() if stored.data_ptr() in memory else stored
        memory.add(stored.data_ptr())
    return kept


def fill(model: nn.Module, file: Path, *, assign: bool = False) -> None:
    """Fill a model with the weights of a file.

    Args:
        model: the model, whose tensors may be sharded.
        file: the safetensors file.
        assign: replace the model's tensors by memory-mapped ones of the file, or by copies where the dtype differs, for a
            model on the meta device. Otherwise values are copied into the model's tensors.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the model.
    """
    loaded = read_tensors(file)
    if assign:
        _convert(model, loaded, file)
    fill_tensors(model, loaded, file, assign=assign)


def _convert(model: nn.Module, loaded: dict[str, Tensor], file: Path) -> None:
    """Convert tensors that the model holds in another dtype, from single reads: used pages of a mapping stay in memory."""
    own = named_tensors(model)
    changed = [name for name, tensor in loaded.items() if name in own and own[name].dtype != tensor.dtype]
    if not changed:
        return
    try:
        reader = TensorReader(file)
        for name in changed:
            loaded[name] = reader.get(name, own[name].dtype)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise damaged(file, str(error)) from None


def fill_tensors(model: nn.Module, loaded: dict[str, Tensor], file: Path, *, assign: bool = False) -> None:
    """Fill a model as `fill` does, with tensors that were read from a file.

    Args:
        model, assign: as for `fill`.
        loaded: the tensors by name.
        file: their file, for messages.

    Raises:
        CheckpointError: they do not fit the model, or indices among them, such as a table of experts, are out of range.
    """
    own = named_tensors(model)
    saved = {id(own[name]): tensor for name, tensor in loaded.items() if name in own}
    for name, tensor in own.items():
        if name not in loaded and id(tensor) in saved:
            loaded[name] = saved[id(tensor)]
    _require_same(model, {name: tensor.shape for name, tensor in loaded.items()}, file)
    for name, limit in index_limits(model).items():
        why = index_problem(loaded[name], limit)
        if why is not None:
            raise damaged(file, f"{name} {why}")
    if not assign:
        with torch.no_grad():
            for name, tensor in own.items():
                copy_sharded(tensor, part_of(model, name, loaded[name]))
        return
    # By identity, so that a tied tensor remains one tensor.
    fresh: dict[int, Tensor] = {}
    for name, tensor in own.items():
        if id(tensor) not in fresh:
            value = loaded[name].to(tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            fresh[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for key, old in held.items():
                if old is not None and id(old) in fresh:
                    held[key] = fresh[id(old)]  # type: ignore[assignment]


def save_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file with the permissions that the umask gives.

    Raises:
        FileError: the file cannot be written.
    """
    # The library creates files that only their owner may read.
    with writing(file):
        mode = new_file_mode(file)
        try:
            save_file(tensors, file, metadata=metadata)
        except safetensors.SafetensorError as error:
            raise FileError(f"{file} cannot be written: {error}") from error
        file.chmod(mode)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, memory-mapped.

    Raises:
        CheckpointError: the file is missing or damaged.
        FileError: the file may not be read.
    """
    try:
        # The library reports a missing permission like damage.
        with reading(file), file.open("rb"):
            pass
        require_utf8(file)
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing", hint=remedy(file.parent)) from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise damaged(file, str(error)) from None


def require_fit(model: nn.Module, stored: Mapping[str, Sequence[int]], file: Path) -> dict[str, str]:
    """Return for each tensor of a model the name under which a file stores it; a tied one is stored once.

    Args:
        model: the model.
        stored: the shape of each tensor of the file.
        file: the file, for messages.

    Raises:
        CheckpointError: the file lacks tensors, has others, or one has another shape.
    """
    own = named_tensors(model)
    names = {id(own[name]): name for name in stored if name in own}
    sources = {name: name if name in stored else names[id(tensor)] for name, tensor in own.items() if id(tensor) in names}
    extra = {name: shape for name, shape in stored.items() if name not in own}
    _require_same(model, {**{name: stored[source] for name, source in sources.items()}, **extra}, file)
    return sources


def _require_same(model: nn.Module, loaded: Mapping[str, Sequence[int]], file: Path) -> None:
    own = {name: whole_shape(model, name, tensor) for name, tensor in named_tensors(model).items()}
    missing = [name for name in own if name not in loaded]
    unknown = [name for name in loaded if name not in own]
    resized = [name for name in own if name in loaded and tuple(own[name]) != tuple(loaded[name])]
    if not (missing or unknown or resized):
        return
    parts = []
    if missing:
        parts.append(f"it lacks {_some(missing)}")
    if unknown:
        parts.append(f"it also has {_some(unknown)}")
    if resized:
        name = resized[0]
        parts.append(f"{name} is {tuple(loaded[name])} in the file and {tuple(own[name])} in the model")
    raise CheckpointError(
        f"{file} does not fit the model: {'; '.join(parts)}", hint="Load it with the spec.yaml of its run."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def damaged(file: Path, why: str) -> CheckpointError:
    """Return the error for a file of a checkpoint that cannot be read."""
    return CheckpointError(f"{file} is damaged: {why}", hint=remedy(file.parent))


def remedy(checkpoint: Path) -> str:
    """Return the remedy for a checkpoint with a missing or damaged file."""
    try:
        others = [each for each in checkpoint.parent.iterdir() if each != checkpoint and (each / "state.json").is_file()]
    except OSError:
        others = []
    if any(each.name < checkpoint.name for each in others):
        return f"Restore the file, or remove {checkpoint} to return to the previous checkpoint."
    if others:
        return f"Restore the file from a copy, or remove {checkpoint}; the run has later checkpoints."
    return "Restore the file from a copy. The run has no other checkpoint; without a copy, train or import it again."


def cause(error: Exception) -> str:
    """Return what is wrong with data whose reading raised an error, in words for the user."""
    if isinstance(error, JSONDecodeError):
        return f"it is not valid JSON (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return "it is not a text in UTF-8"
    if isinstance(error, RecursionError):
        return "its content is nested too deeply"
    if isinstance(error, KeyError) and error.args:
        return f"it lacks {error.args[0]!r}"
    if isinstance(error, LookupError | TypeError | AttributeError):
        return "its content has another structure than what was saved"
    return str(error)
