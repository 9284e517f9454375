"""Tensors that may be sharded over processes: gathered when they are saved, sharded again when restored.

Full sharding (FSDP2) represents them as `DTensor`; the parts of tensor parallelism are plain tensors, known by the names of
their parameters. Both are collective operations, so that files do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.nn.tensor_parallel import tensor_shards

__all__ = [
    "copy_sharded",
    "like_sharded",
    "own_memory",
    "part_of",
    "parts_of",
    "shard_like",
    "sharded_type",
    "whole_of",
    "whole_shape",
]


def own_memory(tensor: Tensor) -> Tensor:
    """Return the whole tensor in separate contiguous memory, as the file format requires."""
    tensor = tensor.detach()
    if isinstance(tensor, sharded_type()):
        gathered: Tensor = tensor.full_tensor().cpu()
        return gathered
    tensor = tensor.contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def copy_sharded(target: Tensor, values: Tensor) -> None:
    """Copy values of the whole tensor into a tensor that may be sharded: each process copies its shard."""
    target.copy_(like_sharded(values, target))


def like_sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the tensor, sharded as `like` if the shapes agree; processes select their shards without communication."""
    if not isinstance(like, sharded_type()) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    local = tensor.to(like.device)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)


def shard_like(state: Any, current: Any) -> Any:
    """Return an unpacked state with its tensors sharded like the corresponding tensors of a current state."""
    if isinstance(state, Tensor):
        return like_sharded(state, current) if isinstance(current, Tensor) else state
    if isinstance(state, dict):
        inner = current if isinstance(current, Mapping) else {}
        return {key: shard_like(item, inner.get(key)) for key, item in state.items()}
    if isinstance(state, (list, tuple)):
        matching = current if isinstance(current, (list, tuple)) and len(current) == len(state) else [None] * len(state)
        return type(state)(shard_like(*pair) for pair in zip(state, matching, strict=True))
    return state


def part_of(model: nn.Module, name: str, whole: Tensor) -> Tensor:
    """Return the part that this process holds of a parameter, or of a tensor of its shape."""
    shard = tensor_shards(model).get(name)
    return whole if shard is None else shard.part(whole)


def parts_of(model: nn.Module, state: Any, name: str | None = None) -> Any:
    """Return a state in which the tensors of divided parameters, found by mappings with their names, are parts of them."""
    if isinstance(state, Tensor):
        return state if name is None else part_of(model, name, state)
    if isinstance(state, Mapping):
        names = tensor_shards(model)
        return {key: parts_of(model, item, key if key in names else name) for key, item in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(parts_of(model, item, name) for item in state)
    return state


def whole_of(model: nn.Module, name: str, part: Tensor) -> Tensor:
    """Return the whole tensor of a parameter, or of a tensor of its shape, in separate memory; collective."""
    shard, part = tensor_shards(model).get(name), own_memory(part)
    return part if shard is None else shard.whole(part)


def whole_shape(model: nn.Module, name: str, tensor: Tensor) -> torch.Size:
    """Return the shape of a whole parameter or buffer."""
    shard = tensor_shards(model).get(name)
    return tensor.shape if shard is None else shard.shape


def sharded_type() -> Any:
    """Return `DTensor`, or a placeholder type while torch.distributed is not in use: importing it takes a second."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ()
    from torch.distributed.tensor import DTensor

    return DTensor
