"""Processes of a distributed training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import TrainingError
from gptkit.training.parallel.config import ParallelSpec

__all__ = ["Processes", "joined"]

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
        host: the process group for small messages in host memory.
    """

    rank: int = 0
    count: int = 1
    data: int = 1
    shard: int = 1
    host: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag))
        with _explained():
            torch.distributed.all_reduce(flags, group=self.host)
        return bool(flags)

    def wait(self) -> None:
        """Wait for all processes (barrier).

        Raises:
            TrainingError: another process ended.
        """
        if self.count > 1:
            with _explained():
                torch.distributed.barrier(group=self.host)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"the connection to another process of the training was lost: {error}",
            hint="Read the message of the process that failed first.",
        ) from error


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
        needed = (spec.data or 1) * spec.shard
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
        processes = Processes(distributed.get_rank(), count, *shape, host=host)
        yield processes
        # Without it, a process that ends early can abort the others.
        processes.wait()
    finally:
        if own:
            distributed.destroy_process_group()
