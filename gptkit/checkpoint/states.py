"""States of optimizers and callbacks as JSON and tensors: any nesting of mappings, lists, numbers, texts and tensors.

Tensors are stored in a safetensors file, the rest in JSON, in which a tensor is replaced by its name in the file.
Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.checkpoint.safetensors import read_tensors
from gptkit.checkpoint.sharding import like_sharded, own_memory
from gptkit.core.errors import CheckpointError

__all__ = ["pack", "pack_optimizer", "unpack", "unpack_optimizer"]


def pack(state: Any, prefix: str, owner: str) -> tuple[Any, dict[str, Tensor]]:
    """Split a state into JSON data and its tensors by name.

    Args:
        state: tensors, numbers, texts and None in any nesting of lists, tuples and mappings.
        prefix: prefix of the tensors' names.
        owner: the owner of the state, for messages: ``"the optimizer"``.

    Raises:
        CheckpointError: the state holds an object of another type; names its path.
    """
    tensors: dict[str, Tensor] = {}

    def packed(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = own_memory(value)
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
    """Return the state that `pack` split."""
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
    """Split an optimizer's state into JSON and tensors; parameters are identified by their names in the model."""
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
        file: the file with the tensors.
        packed: the JSON data.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the optimizer.
    """
    tensors = read_tensors(file)
    try:
        names = _parameter_names(model, optimizer)
        own = dict(model.named_parameters())
        index = {name: position for position, name in enumerate(names)}
        groups = unpack(packed["param_groups"], tensors)
        groups = [{**group, "params": [index[name] for name in group["params"]]} for group in groups]
        if [position for group in groups for position in group["params"]] != list(range(len(names))):
            raise ValueError("its parameter groups differ")
        state = {
            index[name]: _each_tensor(value, partial(like_sharded, like=own[name]))
            for name, value in unpack(packed["state"], tensors).items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} does not fit the optimizer: {error}", hint="Resume with the spec that the run was started with."
        ) from error


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the name of each parameter, in the order of the optimizer's state_dict."""
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
