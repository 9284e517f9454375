"""The part of a spec that says how several processes share a training."""

from __future__ import annotations

from pydantic import Field

from gptkit.core.spec import Spec

__all__ = ["ParallelSpec"]


class ParallelSpec(Spec):
    """How several processes share a training; start them with ``torchrun --nproc-per-node N -m gptkit train SPEC``.

    Notes:
        The processes share each step's batch, whose windows do not depend on their number. `data` replicates the model
        (DistributedDataParallel); `shard` splits parameters, gradients and optimizer state (FSDP2); both together
        replicate groups of shards. Auxiliary losses (load balancing of experts) are computed per process, as they are
        per part under gradient accumulation.
    """

    data: int | None = Field(
        None, ge=1, description="Replicas of the model; null for as many as the number of processes divided by `shard`."
    )
    shard: int = Field(1, ge=1, description="Processes that a replica's parameters are split over; 1 for whole replicas.")

    def shape(self, count: int) -> tuple[int, int] | None:
        """Replicas and shards for a number of processes; None where it does not fit."""
        data = self.data or max(1, count // self.shard)
        return (data, self.shard) if data * self.shard == count else None
