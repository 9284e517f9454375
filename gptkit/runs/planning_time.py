"""Time of a distributed training step from a cost model.

Every operation takes as long as its arithmetic or its memory traffic, whichever is longer (the roofline model). The backward
pass takes twice as long as the forward pass, and the loss computes its gradients with it. Collectives are those of ring
algorithms:

    all-gather, reduce-scatter    (p − 1)/p · N  bytes per process
    all-reduce                    2 (p − 1)/p · N

Source: "Roofline" (Williams, Waterman, Patterson 2009, https://doi.org/10.1145/1498765.1498785).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from gptkit.model.work import DIVIDED, Operation
from gptkit.runs.planning_devices import Device

__all__ = ["Collective", "Compute", "Layout", "compute_time", "ring_collective"]

FUSED = 0.4
"""Share of the elementwise memory traffic and of the started operations that remains after compilation."""

_LATENCY = 5e-6
"""Seconds of one step of a ring within a node; between nodes three times as long."""


@dataclass(frozen=True)
class Layout:
    """Distribution of a training: replicas, shards of each, and processes that divide each layer.

    Neighboring processes divide layers, then shard, then replicate, so that the most frequent messages stay in a node.
    """

    data: int
    shard: int = 1
    tensor: int = 1

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.data * self.shard * self.tensor

    def __str__(self) -> str:
        return f"data {self.data} × shard {self.shard} × tensor {self.tensor}"


@dataclass(frozen=True)
class Compute:
    """Seconds of one part of a batch in one process.

    Attributes:
        forward: time of the forward pass.
        backward: time of the backward pass, with recomputation.
        products: the part of both that products are limited by arithmetic.
        launches: the part that is spent on starting operations.
    """

    forward: float
    backward: float
    products: float
    launches: float


@dataclass(frozen=True)
class Collective:
    """Communication of one kind in a step, per process.

    Attributes:
        name: what is exchanged.
        operation: all-reduce, all-gather or reduce-scatter.
        processes: size of the group.
        link: node or network.
        bytes: bytes that each process sends in a step.
        seconds: their time.
        exposed: the part of it that is not hidden behind computation.
    """

    name: str
    operation: str
    processes: int
    link: str
    bytes: float
    seconds: float
    exposed: float = 0.0


def compute_time(
    operations: Iterable[Operation],
    device: Device,
    precision: torch.dtype,
    *,
    compiled: bool,
    recompute: bool,
    tensor: int,
    vocabulary: bool = False,
) -> Compute:
    """Return the time of one part of a batch.

    Args:
        operations: those of the forward pass.
        device: the device.
        precision: dtype of the products.
        compiled: whether elementwise operations are fused.
        recompute: whether blocks are computed again in the backward pass.
        tensor: number of processes that divide attentions and feed-forwards.
        vocabulary: whether they divide the head, too.
    """
    divided = {*DIVIDED, "head and loss"} if vocabulary else DIVIDED
    rate, bandwidth = device.rate(precision), device.bandwidth * device.bandwidth_share
    fused = FUSED if compiled else 1.0
    forward = backward = products = 0.0
    n_forward = n_backward = 0.0
    for operation in operations:
        share = 1 / tensor if operation.component in divided else 1.0
        arithmetic = operation.flops * share / rate
        traffic = operation.bytes * share / bandwidth * (1.0 if operation.flops else fused)
        seconds = max(arithmetic, traffic)
        again = recompute and operation.block >= 0
        times = 0.0 if operation.whole else 3.0 if again else 2.0
        forward += seconds
        backward += times * seconds
        products += (1 + times) * seconds if arithmetic >= traffic else 0.0
        n_forward += 1.0 if operation.flops else fused
        n_backward += times * (1.0 if operation.flops else fused)
    if not device.concurrent:
        launches = device.launch * (n_forward + n_backward)
        return Compute(forward + device.launch * n_forward, backward + device.launch * n_backward, products, launches)
    start_forward, start_backward = device.launch * n_forward, device.launch * n_backward
    launches = max(0.0, start_forward - forward) + max(0.0, start_backward - backward)
    return Compute(max(forward, start_forward), max(backward, start_backward), products, launches)


def ring_collective(
    name: str, operation: str, size: float, processes: int, stride: int, device: Device, *, calls: int = 1
) -> Collective:
    """Return the communication of `size` bytes in a group.

    Args:
        name: what is exchanged.
        operation: all-reduce, all-gather or reduce-scatter.
        size: bytes of the whole tensors, of all calls together.
        processes: size of the group, p.
        stride: distance of neighbors in the group, in processes; a group within a node uses its links.
        device: the device.
        calls: number of collectives that exchange them.
    """
    rounds = 2 if operation == "all-reduce" else 1
    sent = rounds * (processes - 1) / processes * size
    inside = processes * stride <= device.per_node
    bandwidth = (device.link if inside else device.network) * device.link_share
    latency = _LATENCY * (1 if inside else 3) * rounds * (processes - 1) * calls
    return Collective(name, operation, processes, "node" if inside else "network", sent, sent / bandwidth + latency)
