"""States of optimizers and callbacks as JSON and tensors: any nesting of mappings, lists, numbers, texts and tensors.

Tensors are stored in a safetensors file, the rest in JSON, in which a tensor is replaced by its name in the file.
Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gptkit.checkpoint.safetensors import read_tensors
from gptkit.checkpoint.sharding import like_sharded, own_memory, part_of, whole_of
from gptkit.core.errors import CheckpointError

__all__ = ["pack", "pack_optimizer", "unpack", "unpack_optimizer", "whole_tensors"]


T = TypeVar("T")

Take = Callable[[str | None, Tensor], T]
"""Function that returns what is stored of a tensor, given the name of its parameter, if it belongs to one."""


def pack(state: Any, prefix: str, owner: str, names: Container[str], take: Take[T]) -> tuple[Any, dict[str, T]]:
    """Split a state into JSON data and its tensors by name.

    Args:
        state: tensors, numbers, texts and None in any nesting of lists, tuples and mappings.
        prefix: prefix of the tensors' names.
        owner: the owner of the state, for messages: ``"the optimizer"``.
        names: names of parameters; a tensor below such a key of a mapping belongs to the parameter.
        take: returns what is stored of a tensor.

    Raises:
        CheckpointError: the state holds an object of another type; names its path.
    """
    tensors: dict[str, T] = {}

    def packed(value: Any, path: str, name: str | None = None) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = take(name, value)
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {
                "dict": [[key, packed(item, f"{path}.{key}", key if key in names else name)] for key, item in value.items()]
            }
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [packed(item, f"{path}.{index}", name) for index, item in enumerate(value)]}
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


def whole_tensors(model: nn.Module) -> Take[Tensor]:
    """Return the function that gathers tensors for `pack`; collective where they are sharded."""
    return lambda name, tensor: own_memory(tensor) if name is None else whole_of(model, name, tensor)


def pack_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, take: Take[T]) -> tuple[Any, dict[str, T]]:
    """Split an optimizer's state into JSON and tensors, as `pack`; parameters are identified by their names in the model."""
    names = _parameter_names(model, optimizer)
    state = optimizer.state_dict()
    # Those without a state, such as parameters that no gradient has reached, are written too: a missing one is damage.
    by_name = {name: state["state"].get(index, {}) for index, name in enumerate(names)}
    groups = [{**group, "params": [names[index] for index in group["params"]]} for group in state["param_groups"]]
    packed_state, tensors = pack(by_name, "state", "the optimizer", names, take)
    packed_groups, more = pack(groups, "group", "the optimizer", (), take)
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
        # A setting that is missing, as in a damaged or an older file, is that of the new optimizer.
        groups = [{**new, **group} for new, group in zip(optimizer.param_groups, groups, strict=True)]
        states = unpack(packed["state"], tensors)
        if states and (missing := [name for name in names if name not in states]):
            raise ValueError(f"it has no state of {missing[0]}")
        state = {
            index[name]: _each_tensor(value, partial(_share, model, name, own[name]))
            for name, value in states.items()
            if value
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        _require_equal_keys(optimizer, {id(own[name]) for name, value in states.items() if not value})
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} does not fit the optimizer: {error}", hint="Resume with the spec that the run was started with."
        ) from error


def _require_equal_keys(optimizer: torch.optim.Optimizer, without: Collection[int]) -> None:
    """Raise an error if the states of two parameters of one group and shape have different entries.

    Args:
        optimizer: the restored optimizer.
        without: `id` of each parameter that had no state.
    """
    known: dict[Any, tuple[set[str], set[str]]] = {}
    for number, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            if id(parameter) in without:
                continue
            entries = optimizer.state.get(parameter, {})
            keys = set(entries), {key for key, value in entries.items() if isinstance(value, Tensor)}
            first = known.setdefault((number, parameter.shape), keys)
            if first != keys:
                raise ValueError(f"its states of equal parameters have the entries {sorted(first[0])} and {sorted(keys[0])}")


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the name of each parameter, in the order of the optimizer's state_dict."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _share(model: nn.Module, name: str, parameter: Tensor, value: Tensor) -> Tensor:
    """Return this process's share of a whole tensor of a parameter's state."""
    return like_sharded(part_of(model, name, value), parameter)


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_tensor(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each_tensor(item, change) for item in value)
    return value
