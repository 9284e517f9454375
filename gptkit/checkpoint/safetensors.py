"""Model weights, optimizer state and callback state as safetensors and JSON.

Tensors go into safetensors files. Everything around them (numbers, texts, lists, mappings) is packed into JSON, in which a
tensor is a reference to its name in the file. Nothing is pickled.

A tensor that is sharded over processes (a `DTensor`) is gathered when it is packed and sharded again when it is restored, so
the files do not depend on the number of processes. Packing and restoring are then collective operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptkit.core.atomic import new_file_mode, reading, writing
from gptkit.core.errors import CheckpointError, FileError

__all__ = [
    "copy_sharded",
    "damaged",
    "fill",
    "fill_matching",
    "named_tensors",
    "pack",
    "pack_optimizer",
    "read_tensors",
    "remedy",
    "save_tensors",
    "shard_like",
    "unpack",
    "unpack_optimizer",
    "weights",
]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name: the model's own tensors, tied ones under each of their names."""
    return dict(model.state_dict(keep_vars=True))


# -- weights --------------------------------------------------------------------------------------------------


def weights(model: nn.Module, replaced: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a model as a file holds them: tied ones once, each in memory of its own.

    Args:
        model: the model.
        replaced: tensors to store in place of the model's, by name (averaged weights, for example).
    """
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    memory: set[int] = set()
    for name, tensor in named_tensors(model).items():
        if id(tensor) in seen:
            # Tied: the model restores it under its other name when loading.
            continue
        seen.add(id(tensor))
        stored = _own(tensor if replaced is None else replaced.get(name, tensor))
        kept[name] = stored.clone() if stored.data_ptr() in memory else stored
        memory.add(stored.data_ptr())
    return kept


def fill(model: nn.Module, file: Path, *, assign: bool = False) -> None:
    """Fill a model with the weights of a file.

    Args:
        model: the model, whose tensors may be sharded.
        file: the safetensors file.
        assign: let the model's tensors be those of the file, mapped and not read: for a model on the meta device.
            Otherwise they are copied into the tensors that the model has.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
    """
    loaded = read_tensors(file)
    own = named_tensors(model)
    saved = {id(own[name]): tensor for name, tensor in loaded.items() if name in own}
    for name, tensor in own.items():
        if name not in loaded and id(tensor) in saved:
            loaded[name] = saved[id(tensor)]
    _require_same(file, own, loaded)
    if not assign:
        with torch.no_grad():
            for name, tensor in own.items():
                copy_sharded(tensor, loaded[name])
        return
    # By identity, so that what was one tensor in the model stays one.
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
    # The library makes files that only their owner may read.
    with writing(file):
        mode = new_file_mode(file)
        try:
            save_file(tensors, file, metadata=metadata)
        except safetensors.SafetensorError as error:
            raise FileError(f"{file} cannot be written: {error}") from error
        file.chmod(mode)


def fill_matching(model: nn.Module, file: Path) -> tuple[list[str], list[str]]:
    """Copy the tensors of a file that fit into a model: those of the same name and shape.

    Returns:
        The names of the model's tensors that were not loaded, and of the file's tensors that were not used.

    Raises:
        CheckpointError: the file is missing or damaged, or no tensor of it fits.
    """
    loaded, own = read_tensors(file), named_tensors(model)
    fitting = [name for name in loaded if name in own and own[name].shape == loaded[name].shape]
    if not fitting:
        raise CheckpointError(f"{file}: no tensor fits the model", hint="Check the path, and the names of the tensors.")
    with torch.no_grad():
        for name in fitting:
            copy_sharded(own[name], loaded[name])
    filled = {id(own[name]) for name in fitting}
    return [name for name, tensor in own.items() if id(tensor) not in filled], sorted(set(loaded) - set(fitting))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped and not read.

    Raises:
        CheckpointError: the file is missing or damaged.
        FileError: the file may not be read.
    """
    try:
        # The library reports a refused permission as it reports damage.
        with reading(file), file.open("rb"):
            pass
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing", hint=remedy(file.parent)) from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise damaged(file, str(error)) from None


def _require_same(file: Path, own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> None:
    missing = [name for name in own if name not in loaded]
    unknown = [name for name in loaded if name not in own]
    resized = [n for n in own if n in loaded and own[n].shape != loaded[n].shape]
    if not (missing or unknown or resized):
        return
    parts = []
    if missing:
        parts.append(f"it lacks {_some(missing)}")
    if unknown:
        parts.append(f"it has {_some(unknown)} too many")
    if resized:
        name = resized[0]
        parts.append(f"{name} is {tuple(loaded[name].shape)} there and {tuple(own[name].shape)} in the model")
    raise CheckpointError(
        f"{file} is of another model: {'; '.join(parts)}", hint="Load it with the spec.yaml that belongs to it."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# -- states: any nesting of mappings, lists, numbers, texts and tensors ----------------------------------------


def pack(state: Any, prefix: str, owner: str) -> tuple[Any, dict[str, Tensor]]:
    """Split a state into what JSON holds and its tensors by name.

    Args:
        state: tensors, numbers, texts and None in any nesting of lists, tuples and mappings.
        prefix: what the tensors' names begin with.
        owner: whose state it is, for messages: ``"the optimizer"``.

    Raises:
        CheckpointError: the state holds an object of another type; says where.
    """
    tensors: dict[str, Tensor] = {}

    def packed(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = _own(value)
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {"dict": [[key, packed(item, f"{path}.{key}")] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [packed(item, f"{path}.{index}") for index, item in enumerate(value)]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise CheckpointError(
            f"{owner}'s {path} is of type {type(value).__name__}, which cannot be saved",
            hint="A state may hold tensors, numbers, texts, lists and mappings only.",
        )

    return packed(state, prefix), tensors


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `pack` split."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        # Copied: the file is memory-mapped, and may be pruned during training.
        return tensors[content].clone()
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def pack_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, dict[str, Tensor]]:
    """An optimizer's state as JSON and tensors, its parameters known by their names in the model."""
    names = _parameter_names(model, optimizer)
    state = optimizer.state_dict()
    by_name = {names[index]: value for index, value in state["state"].items()}
    groups = [{**group, "params": [names[index] for index in group["params"]]} for group in state["param_groups"]]
    packed_state, tensors = pack(by_name, "state", "the optimizer")
    packed_groups, more = pack(groups, "group", "the optimizer")
    return {"state": packed_state, "param_groups": packed_groups}, {**tensors, **more}


def unpack_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, file: Path, packed: Mapping[str, Any]) -> None:
    """Restore an optimizer from what `pack_optimizer` returned.

    Args:
        optimizer: a new optimizer of the model.
        model: the model.
        file: where the tensors are.
        packed: the rest.

    Raises:
        CheckpointError: the file is missing, damaged, or of another optimizer.
    """
    tensors = read_tensors(file)
    try:
        names = _parameter_names(model, optimizer)
        own = dict(model.named_parameters())
        index = {name: position for position, name in enumerate(names)}
        groups = unpack(packed["param_groups"], tensors)
        groups = [{**group, "params": [index[name] for name in group["params"]]} for group in groups]
        if [position for group in groups for position in group["params"]] != list(range(len(names))):
            raise ValueError("its parameter groups are others")
        state = {
            index[name]: _each_tensor(value, partial(_like, like=own[name]))
            for name, value in unpack(packed["state"], tensors).items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} does not fit the optimizer: {error}", hint="Resume with the spec that the run was started with."
        ) from error


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The name of each parameter at its index in the optimizer's state_dict."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_tensor(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each_tensor(item, change) for item in value)
    return value


# -- tensors --------------------------------------------------------------------------------------------------


def _own(tensor: Tensor) -> Tensor:
    """The whole tensor in memory of its own, contiguous, as the file format requires."""
    tensor = tensor.detach()
    if isinstance(tensor, _sharded_type()):
        gathered: Tensor = tensor.full_tensor().cpu()
        return gathered
    tensor = tensor.contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def copy_sharded(target: Tensor, values: Tensor) -> None:
    """Copy values of the whole tensor into a tensor that may be sharded: each process copies its shard."""
    target.copy_(_like(values, target))


def _like(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor, sharded as `like` is where the shapes agree; every process cuts its shard without communication."""
    if not isinstance(like, _sharded_type()) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    local = tensor.to(like.device)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)


def shard_like(state: Any, current: Any) -> Any:
    """A state that was unpacked, its tensors sharded as those at the same places in a current state."""
    if isinstance(state, Tensor):
        return _like(state, current) if isinstance(current, Tensor) else state
    if isinstance(state, dict):
        inner = current if isinstance(current, Mapping) else {}
        return {key: shard_like(item, inner.get(key)) for key, item in state.items()}
    if isinstance(state, (list, tuple)):
        matching = current if isinstance(current, (list, tuple)) and len(current) == len(state) else [None] * len(state)
        return type(state)(shard_like(*pair) for pair in zip(state, matching, strict=True))
    return state


def _sharded_type() -> Any:
    """`DTensor`, or a type that no tensor has while torch.distributed is not in use: importing it takes a second."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ()
    from torch.distributed.tensor import DTensor

    return DTensor


# -- errors ---------------------------------------------------------------------------------------------------


def damaged(file: Path, why: str) -> CheckpointError:
    """The error for a file of a checkpoint that cannot be read."""
    return CheckpointError(f"{file} is damaged: {why}", hint=remedy(file.parent))


def remedy(checkpoint: Path) -> str:
    """What to do about a checkpoint with a missing or damaged file."""
    return f"Restore the file, or remove {checkpoint} to go back to the previous checkpoint."
