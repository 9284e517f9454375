"""Base of optimizers whose update of each number depends on the gradients of this number only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gptkit.components.optimizer.modules.base import Optimizer

__all__ = ["Batch", "Elementwise"]

_MOST = 1 << 26
"""Numbers that are updated together: more parameters are updated in several calls, which bounds the temporary memory."""


@dataclass(frozen=True)
class Batch:
    """Parameters of one group that are updated together; of sharded ones, the shards of this process.

    Attributes:
        parameters: the parameters.
        gradients: their gradients.
        step: the number of their updates, this one included.
        states: the state of each parameter.
    """

    parameters: list[Tensor]
    gradients: list[Tensor]
    step: int
    states: list[dict[str, Any]]

    def tensors(self, entry: str) -> list[Tensor]:
        """Return one entry of the states; changes in place change the states."""
        return [_local(state[entry]) for state in self.states]


class Elementwise(Optimizer):
    """Base of optimizers that update many parameters at once with `torch._foreach` functions.

    The state of a parameter has its number of updates, `step`, and the tensors `entries`.

    Args:
        params: parameters or groups of them.
        lr: the learning rate.
        cautious: apply weight decay only to entries that the update moves towards zero.
    """

    entries: ClassVar[tuple[str, ...]] = ()
    """Names of the state's tensors, which have the shape of the parameter and are zeros at first."""

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], *, lr: float, cautious: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self.cautious = cautious

    def update_group(self, group: dict[str, Any]) -> None:
        for batch in self._batches(group["params"]):
            self.update(batch, group)

    def update(self, batch: Batch, group: dict[str, Any]) -> None:
        """Update the parameters and the state of a batch."""
        raise NotImplementedError(f"{type(self).__name__} does not override update")

    def descend(self, batch: Batch, updates: list[Tensor], group: dict[str, Any]) -> None:
        """Apply weight decay, then subtract the updates, both multiplied by the learning rate of the group."""
        self.decay(batch.parameters, batch.parameters, updates, group)
        torch._foreach_add_(batch.parameters, updates, alpha=-group["lr"])

    def decay(self, targets: list[Tensor], weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        """Subtract from the targets their weights, multiplied by the learning rate and the weight decay of the group."""
        factor = group["lr"] * group["weight_decay"]
        if not factor:
            return
        if self.cautious:
            weights = [torch.where(update * each >= 0, each, 0) for update, each in zip(updates, weights, strict=True)]
        torch._foreach_add_(targets, weights, alpha=-factor)

    def new_state(self, parameter: Tensor) -> dict[str, Any]:
        """Return the state of a parameter before its first update."""
        return {"step": 0, **{entry: torch.zeros_like(parameter) for entry in self.entries}}

    def key(self, state: dict[str, Any]) -> Any:
        """Return what the states of parameters that are updated together have in common."""
        return state["step"]

    def _batches(self, parameters: Iterable[nn.Parameter]) -> Iterator[Batch]:
        alike: dict[Any, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if not self.state[parameter]:
                self.state[parameter] = self.new_state(parameter)
            state = self.state[parameter]
            state["step"] += 1
            alike.setdefault((parameter.device, parameter.dtype, self.key(state)), []).append(parameter)
        for members in alike.values():
            yield from (self._batch(part) for part in _parts(members))

    def _batch(self, parameters: list[nn.Parameter]) -> Batch:
        states = [self.state[parameter] for parameter in parameters]
        gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        return Batch([_local(parameter) for parameter in parameters], gradients, states[0]["step"], states)


def _parts(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters in parts of a limited size."""
    part: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if part and size + parameter.numel() > _MOST:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += parameter.numel()
    yield part


def _local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, in the same memory; a tensor that is not sharded itself."""
    shard: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return shard.detach()
