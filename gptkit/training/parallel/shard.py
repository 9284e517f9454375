"""Models over processes: full sharding (FSDP2), replicas (DistributedDataParallel), and tensor parallelism.

The order is: build on the meta device, divide, shard, allocate the shards in every process, initialize. No process holds
the whole model.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.checkpoint.sharding import copy_sharded, part_of
from gptkit.model.gpt import GPT
from gptkit.model.initialize import initialize
from gptkit.training.parallel.processes import Processes
from gptkit.training.parallel.tensor import divide

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["distribute", "replicate"]


def replicate(model: GPT, processes: Processes) -> nn.Module:
    """Return the callable model with a full replica in every process: gradients are averaged over the processes."""
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(
        model,
        process_group=processes.part_group,
        find_unused_parameters=_leaves_unused(model),
        gradient_as_bucket_view=True,
    )


def _leaves_unused(model: GPT) -> bool:
    """Return whether a step may not use all parameters, which the exchange of gradients must not wait for."""
    shell = GPT(model.spec, model.vocab_size, device="meta")
    for own, parameter in zip(shell.parameters(), model.parameters(), strict=True):
        own.requires_grad_(parameter.requires_grad)
    ids_BT = torch.zeros(1, min(8, model.context_length), dtype=torch.int64, device="meta")
    shell(ids_BT, ids_BT).loss.backward()
    return any(parameter.grad is None for parameter in shell.parameters() if parameter.requires_grad)


def distribute(model: GPT, processes: Processes, device: torch.device, seed: int | None) -> None:
    """Divide and shard a model of the meta device in place, allocate this process's share, and initialize it.

    Args:
        model: a model on the meta device.
        processes: the processes that share the model.
        device: the device of this process.
        seed: seed of the initialization, whose values equal those of one process; None if weights are loaded next.
    """
    from torch.distributed.device_mesh import init_device_mesh

    if processes.tensor > 1:
        divide(model, processes)
    if processes.shard > 1:
        names, sizes = ("replica", "shard", "tensor"), (processes.data, processes.shard, processes.tensor)
        mesh = init_device_mesh(device.type, sizes, mesh_dim_names=names)
        _shard(model, mesh["replica", "shard"] if processes.data > 1 else mesh["shard"])
    buffers = _buffers(model, device)
    model.to_empty(device=device)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    if seed is not None:
        _initialize(model, seed)


def _initialize(model: GPT, seed: int) -> None:
    """Fill the model's share of each parameter with the values that the whole parameter has in one process."""
    shell = GPT(model.spec, model.vocab_size, device="meta")
    own, names = dict(model.named_parameters()), {id(parameter): name for name, parameter in shell.named_parameters()}

    def copy(parameter: Tensor, values: Tensor) -> None:
        name = names[id(parameter)]
        copy_sharded(own[name], part_of(model, name, values))

    initialize(shell, model.spec.initializer, model.spec.context(model.vocab_size), seed, copy=copy)


def _shard(model: GPT, mesh: DeviceMesh) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    whole = _updated_outside_of_gradients(model)

    def shard(module: nn.Module) -> None:
        fully_shard(module, mesh=mesh, ignored_params=whole)

    for module in _shared(model):
        # Several blocks call it, so that none of them can gather its parameters.
        shard(module)
        # A view of its result is safe, as positions are added to scores and never written to.
        warnings.filterwarnings("ignore", message=rf".*{type(module).__name__}\) returned a view tensor")
        for method in ("bias", "rotate", "content_bias", "value_bias", "embed", "prepare"):
            if hasattr(module, method):
                register_fsdp_forward_method(module, method)
    for block in model.blocks:
        shard(block)
    if not model.head.tied_weights:
        # A tied head reads the embedding's table, so both stay with the root.
        shard(model.embedding)
        shard(model.head)
        register_fsdp_forward_method(model.head, "loss")
    shard(model)


def _updated_outside_of_gradients(model: nn.Module) -> set[nn.Parameter]:
    """Return parameters that modules update after each step from sums over all processes: these are replicated."""
    return {
        parameter
        for module in model.modules()
        if hasattr(module, "after_step")
        for parameter in module.parameters(recurse=False)
        if not parameter.requires_grad
    }


def _shared(model: GPT) -> list[nn.Module]:
    """Return modules with parameters that several blocks share."""
    holders = Counter(id(module) for block in model.blocks for module in set(block.modules()))
    seen: set[int] = set()
    shared: list[nn.Module] = []
    for module in model.blocks.modules():
        if holders[id(module)] > 1 and id(module) not in seen and any(True for _ in module.parameters()):
            seen |= {id(inner) for inner in module.modules()}
            shared.append(module)
    return shared


def _buffers(model: GPT, device: torch.device) -> dict[str, Tensor]:
    """Return the values of a model's buffers, which are computed when it is built."""
    if not any(True for _ in model.buffers()):
        return {}
    # Its parameters are allocated and never touched.
    built = GPT(model.spec, model.vocab_size, seed=None, device="cpu")
    return {name: buffer.to(device) for name, buffer in built.named_buffers()}
