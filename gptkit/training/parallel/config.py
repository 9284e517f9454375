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
        replicate groups of shards. `tensor` divides the heads of attentions and the hidden features of feed-forwards over
        neighboring processes, which compute the same part of a batch; what declares no division is replicated. Needs an
        elementwise optimizer (adamw, lion). Auxiliary losses (load balancing of experts) are computed per process, as they
        are per part under gradient accumulation.
    """

    data: int | None = Field(
        None,
        ge=1,
        description="Number of replicas of the model; null for the number of processes divided by `shard` · `tensor`.",
    )
    shard: int = Field(1, ge=1, description="Number of processes that a replica is sharded over; 1 for no sharding.")
    tensor: int = Field(
        1, ge=1, description="Number of processes that each layer is divided over (tensor parallelism); 1 for none."
    )

    def shape(self, count: int) -> tuple[int, int, int] | None:
        """Return the replicas, shards and tensor parts for a number of processes; None if it does not fit."""
        data = self.data or max(1, count // (self.shard * self.tensor))
        return (data, self.shard, self.tensor) if data * self.shard * self.tensor == count else None
