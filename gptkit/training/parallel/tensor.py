"""Tensor parallelism: modules that declare their `divisions` are divided over processes; all others are replicated."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.core.errors import TrainingError
from gptkit.model.gpt import GPT
from gptkit.nn.part_group import enter, leave
from gptkit.nn.tensor_parallel import PartForward, TensorParallel, narrow, total_norm, undivided_reason, uneven
from gptkit.nn.vocabulary import divide_vocabulary
from gptkit.training.parallel.processes import Processes
from gptkit.training.seeds import derive

__all__ = ["clip_divided", "divide"]

_log = logging.getLogger(__name__)

_BLOCK = re.compile(r"^blocks\.\d+")


def divide(model: GPT, processes: Processes) -> None:
    """Divide the modules of a model on the meta device over the processes of a tensor group, in place.

    Afterwards ``model.tensor_shards`` holds the divided parameters by name.

    Raises:
        TrainingError: the heads or features of a module have no equal parts.
    """
    count, replicated = processes.tensor, Counter[str]()
    shards: dict[int, Any] = {}
    done: set[nn.Module] = set()
    for index, (name, module) in enumerate(model.named_modules()):
        if not isinstance(module, TensorParallel) or module in done:
            continue
        reason = undivided_reason(module)
        if reason is not None:
            if any(True for _ in module.parameters()) and not _holds_divisible(module):
                replicated[f"{_BLOCK.sub('blocks.*', name)} ({reason})"] += 1
            continue
        what = uneven(module.divisions(), count)
        if what is not None:
            raise TrainingError(
                f"training.parallel.tensor is {count}, but {name} has {what}, which have no {count} equal parts",
                hint="Choose a number of processes that divides the numbers of heads, of key/value heads and of hidden "
                "features.",
            )
        done |= set(module.modules())
        module.forward = _Region(module, processes, index)
        divided = narrow(module, count, processes.tensor_rank, _Group(processes.tensor_group))
        shards |= {id(module.get_parameter(own)): shard for own, shard in divided.items()}
    layers = bool(shards)
    tables, whole = divide_vocabulary(model, count, processes.tensor_rank, _Group(processes.tensor_group))
    shards |= {id(model.get_parameter(name)): shard for name, shard in tables.items()}
    parameters = model.named_parameters(remove_duplicate=False)
    model.tensor_shards = {name: shards[id(parameter)] for name, parameter in parameters if id(parameter) in shards}
    if not layers:
        raise TrainingError(
            f"training.parallel.tensor is {count}, but no module of the model can be divided",
            hint="Set training.parallel.tensor to 1, and training.parallel.shard to the number of processes.",
        )
    if processes.is_main:
        ends = [name for name in ("embedding", "head") if any(True for _ in getattr(model, name).parameters())]
        named = [*tables, *whole]
        others = [end for end in ends if not any(name.startswith(f"{end}.") or name.split()[0] == end for name in named)]
        listed = ", ".join([*whole, *others, "norms", *replicated])
        _log.warning("training.parallel.tensor: every process of a tensor group holds a copy of: %s", listed)


def _holds_divisible(module: nn.Module) -> bool:
    inner = (each for each in module.modules() if each is not module and isinstance(each, TensorParallel))
    return any(undivided_reason(each) is None for each in inner)


class _Group:
    """Collective operations of a tensor group."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def gather(self, part: Tensor) -> list[Tensor]:
        part = part.detach().contiguous()
        nccl = torch.distributed.get_backend(self.group) == "nccl"
        own = part.cuda() if nccl else part
        parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size(self.group))]
        torch.distributed.all_gather(parts, own, group=self.group)
        return [each.to(part.device) for each in parts]

    def add(self, x: Tensor) -> Tensor:
        return _summed(x, self.group)


def _summed(x: Tensor, group: Any) -> Tensor:
    result = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(result, group=group)
    return result


class _Region(PartForward):
    """Forward pass of a divided module in training: its input and output are equal in all processes of the group.

    Dropout inside draws masks that differ between the processes; random numbers outside are not affected, so that all
    processes draw the same masks there.
    """

    def __init__(self, module: TensorParallel, processes: Processes, index: int) -> None:
        group = _Group(processes.tensor_group)
        super().__init__(module, processes.tensor, partial(enter, group=group), partial(leave, group=group))
        self._module = module
        self._key = (index, processes.tensor_rank)

    def __call__(self, x: Tensor, *rest: Any, **inputs: tuple[Tensor, ...]) -> Tensor:
        if not self._module.training:
            return super().__call__(x, *rest, **inputs)
        get, restore, seed = _random_state(x.device)
        outer = get()
        seed(derive(0, hashlib.blake2b(outer.numpy().tobytes()).hexdigest(), *self._key))
        inner = get()
        try:
            return super().__call__(x, *rest, **inputs)
        finally:
            drew = not torch.equal(inner, get())
            restore(outer)
            if drew:
                # The next module must not derive its masks from the same state.
                torch.rand((), device=x.device)


def _random_state(device: torch.device) -> tuple[Callable[[], Tensor], Callable[[Tensor], None], Callable[[int], object]]:
    """Return the functions that read, restore and seed the state of a device's random numbers."""
    if device.type == "cpu":
        return torch.get_rng_state, torch.set_rng_state, torch.default_generator.manual_seed
    module = torch.get_device_module(device)
    return module.get_rng_state, module.set_rng_state, module.manual_seed


def clip_divided(parameters: Sequence[Tensor], divided: Collection[Tensor], limit: float, processes: Processes) -> Tensor:
    """Scale gradients in place so that their norm is at most `limit`, as `clip_grad_norm_` for a divided model.

    Args:
        parameters: all trained parameters, which may be sharded.
        divided: those of which each process of a tensor group holds a part.
        limit: the maximum norm.
        processes: the processes of the training.

    Returns:
        The norm before clipping, equal in all processes.
    """
    parts = {id(parameter) for parameter in divided}
    gradients = [(id(each) in parts, each.grad) for each in parameters if each.grad is not None]
    norm = total_norm(
        [gradient for part, gradient in gradients if not part],
        [gradient for part, gradient in gradients if part],
        lambda square: _summed(square, processes.tensor_group),
    )
    if math.isfinite(limit):
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([getattr(gradient, "_local_tensor", gradient) for _, gradient in gradients], factor)
    return norm
