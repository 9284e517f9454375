"""Spec of distributed training."""

from __future__ import annotations

from pydantic import Field

from gptkit.core.spec import Spec

__all__ = ["ParallelSpec"]


class ParallelSpec(Spec):
    """Distributed training; start the processes with ``torchrun --nproc-per-node N -m gptkit train SPEC``.

    Notes:
        The processes share each step's batch, whose windows do not depend on their number. `data` replicates the model
        (DistributedDataParallel); `shard` splits parameters, gradients and optimizer state (FSDP2); both together
        replicate groups of shards. Auxiliary losses (load balancing of experts) are computed per process, as they are
        per part under gradient accumulation.
    """

    data: int | None = Field(
        None, ge=1, description="Number of replicas of the model; null for the number of processes divided by `shard`."
    )
    shard: int = Field(1, ge=1, description="Number of processes that a replica is sharded over; 1 for no sharding.")

    def shape(self, count: int) -> tuple[int, int] | None:
        """Return the replicas and shards for a number of processes; None if it does not fit."""
        data = self.data or max(1, count // self.shard)
        return (data, self.shard) if data * self.shard == count else None
