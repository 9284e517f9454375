"""Processes of a distributed training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.core.errors import TrainingError
from gptkit.training.parallel.config import ParallelSpec

__all__ = ["Processes", "discard_gathered", "is_lost_connection", "joined"]

_PREPARATION = timedelta(days=7)
"""Timeout of synchronization outside of steps: tokenizing a corpus may take hours."""


@dataclass(frozen=True)
class Processes:
    """Processes of a training; by default a single one.

    Attributes:
        rank: the number of this process, from 0.
        count: the number of processes.
        data: number of replicas of the model.
        shard: number of processes that a replica is sharded over.
        tensor: number of neighboring processes that layers are divided over (a tensor group).
        tensor_group: the process group of this process's tensor group, or None.
        part_group: the process group of the processes with the same part of the layers, or None for all processes.
        host: the process group for small messages in host memory.
    """

    rank: int = 0
    count: int = 1
    data: int = 1
    shard: int = 1
    tensor: int = 1
    tensor_group: Any = None
    part_group: Any = None
    host: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    @property
    def parts(self) -> int:
        """Number of processes that compute different parts of a batch."""
        return self.count // self.tensor

    @property
    def part(self) -> int:
        """The number of this process's part of a batch."""
        return self.rank // self.tensor

    @property
    def tensor_rank(self) -> int:
        """The number of this process in its tensor group."""
        return self.rank % self.tensor

    @property
    def builds_empty(self) -> bool:
        """Whether the model is built without memory, and each process allocates its share of it."""
        return self.shard > 1 or self.tensor > 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the parts of a batch, in place."""
        if self.parts > 1:
            torch.distributed.all_reduce(tensor, group=self.part_group)
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag))
        with _explained():
            torch.distributed.all_reduce(flags, group=self.host)
        return bool(flags)

    def least(self, number: int) -> int:
        """Return the smallest number of all processes; collective."""
        if self.count == 1:
            return number
        numbers = torch.tensor(number)
        with _explained():
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MIN, group=self.host)
        return int(numbers)

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, by rank; collective."""
        if self.count == 1:
            return [text]
        texts = [""] * self.count
        with _explained():
            torch.distributed.all_gather_object(texts, text, group=self.host)
        return texts

    def wait(self) -> None:
        """Wait for all processes (barrier).

        Raises:
            TrainingError: another process ended.
        """
        if self.count > 1:
            with _explained():
                torch.distributed.barrier(group=self.host)


_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset", "socket timeout")
"""Parts of messages that torch raises as a plain RuntimeError when another process has ended."""


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an exception means that another process of the training has ended or does not answer."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error).lower() for part in _LOST)


def _groups(count: int, tensor: int) -> tuple[Any, Any]:
    """Create the groups of neighboring processes, and those of equal rank in them; None without tensor parallelism."""
    if tensor == 1:
        return None, None
    create = torch.distributed.new_subgroups_by_enumeration
    neighbors, _ = create([list(range(first, first + tensor)) for first in range(0, count, tensor)])  # type: ignore[no-untyped-call]
    equal, _ = create([list(range(first, count, tensor)) for first in range(tensor)])  # type: ignore[no-untyped-call]
    return neighbors, equal


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"the connection to another process of the training was lost: {str(error).strip().splitlines()[0]}",
            hint="Read the message of the process that ended first, then start all of them again with --resume.",
        ) from error


def discard_gathered(model: nn.Module) -> None:
    """Discard gathered parameters that a sharded model kept after a forward pass, because their shards have changed."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextlib.contextmanager
def joined(spec: ParallelSpec, device: torch.device) -> Iterator[Processes]:
    """Connect to the other processes of torchrun, and disconnect at the end.

    Args:
        spec: how the processes share the training.
        device: the type of device that every process computes on.

    Raises:
        TrainingError: the number of processes does not fit the spec.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    shape = spec.shape(count)
    if shape is None:
        needed = (spec.data or 1) * spec.shard * spec.tensor
        wanted = f"{needed} processes" if spec.data else f"a multiple of {needed} processes"
        raise TrainingError(
            f"training.parallel requires {wanted}, but the training has {count}",
            hint=f"Start them with torchrun --nproc-per-node {needed} -m gptkit train …, or change training.parallel.",
        )
    if count == 1:
        yield Processes()
        return
    distributed = torch.distributed
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    own = not distributed.is_initialized()
    if own:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        host = distributed.new_group(backend="gloo", timeout=_PREPARATION)
        processes = Processes(distributed.get_rank(), count, *shape, *_groups(count, spec.tensor), host=host)
        yield processes
        # Without it, a process that ends early can abort the others.
        processes.wait()
    finally:
        if own:
            distributed.destroy_process_group()
