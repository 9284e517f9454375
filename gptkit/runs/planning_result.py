"""Result of planning a distributed training."""

from __future__ import annotations

from dataclasses import dataclass

from gptkit.runs.planning_devices import Device
from gptkit.runs.planning_time import Collective, Layout

__all__ = ["Memory", "TrainingPlan"]


@dataclass(frozen=True)
class Memory:
    """Memory of one process in bytes.

    Attributes:
        weights: the parameters.
        optimizer: the optimizer's state.
        gradients: the gradients, complete.
        activations: what the peak of a step holds besides the gradients it has by then, the loss included.
        loss: the part of the activations that the loss needs: a chunk of logits, and the head's weight in low precision.
        communication: gathered shards and their gradients.
        others: the weights of other runs that the training uses, such as a teacher; every process holds all of them.
        reserved: the process itself, besides tensors: libraries, and free parts of the heap.
        total: the peak.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    loss: int
    communication: int
    others: int
    reserved: int
    total: int


@dataclass(frozen=True)
class TrainingPlan:
    """Plan of a training.

    Attributes:
        device: the device.
        layout: the distribution.
        proposed: whether the layout was chosen here.
        batch_size: data windows of a step, a multiple of the number of parts.
        rows: data windows that a process computes at once.
        memory: memory per process.
        forward: seconds of the forward passes of a step.
        backward: seconds of the backward passes, with recomputation.
        optimizer: seconds of clipping and update.
        communication: the collectives.
        step_seconds: time of a step.
        tokens_per_second: of all processes.
        utilization: operations of the model divided by those that the devices' data sheets allow.
        bound: what most of the time is spent on: compute, memory, network or launches.
        checkpoint_bytes: weights and optimizer state on disk.
    """

    device: Device
    layout: Layout
    proposed: bool
    batch_size: int
    rows: int
    memory: Memory
    forward: float
    backward: float
    optimizer: float
    communication: list[Collective]
    step_seconds: float
    tokens_per_second: float
    utilization: float
    bound: str
    checkpoint_bytes: int
