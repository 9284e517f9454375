"""Adafactor for matrices, stacks of matrices, and vectors.

Shapes: X matrices, R rows, C columns; a matrix parameter is (R, C) or (…, R, C).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.components.optimizer.modules.base import ParameterByParameter
from gptkit.components.optimizer.modules.whole import require_whole

__all__ = ["Adafactor"]


class Adafactor(ParameterByParameter):
    """Adam with a second moment of the rows and one of the columns of a matrix, and updates of bounded size.

    Args:
        decay_exponent: exponent of the number of updates in the decay rate of the second moment.
        clip_threshold: the root mean square that an update may have.
        eps: added to squared gradients; smallest scale of a parameter.
        beta1: decay rate of the moving average of the update; None for none.
        scale_parameter: multiply updates by the root mean square of the parameter.
        factored: store sums of rows and columns of matrices in place of one number per entry.
        cautious: apply weight decay only to entries that the update moves towards zero.

    Raises:
        TrainingError: the parameters are sharded.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        decay_exponent: float,
        clip_threshold: float,
        eps: tuple[float, float],
        beta1: float | None,
        scale_parameter: bool,
        factored: bool,
        cautious: bool,
    ) -> None:
        super().__init__(params, lr=lr, cautious=cautious)
        self.decay_exponent = decay_exponent
        self.clip_threshold = clip_threshold
        self.eps = eps
        self.beta1 = beta1
        self.scale_parameter = scale_parameter
        self.factored = factored
        require_whole("adafactor", self)

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["step"] = state.get("step", 0) + 1
        update = self._normalized(gradient, state)
        update.div_((_rms(update) / self.clip_threshold).clamp_(min=1.0))
        if self.scale_parameter:
            update.mul_(_rms(parameter).clamp_(min=self.eps[1]))
        if self.beta1 is not None:
            if "average" not in state:
                state["average"] = torch.zeros_like(update)
            update = state["average"].lerp_(update, 1 - self.beta1)
        self.descend(parameter, update, group)

    def _normalized(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Update the second moments, and return the gradient divided by the root of their estimate of each entry."""
        new = state["step"] ** -self.decay_exponent
        square = gradient.square().add_(self.eps[0])
        if gradient.ndim < 2 or not self.factored:
            return gradient * _moved(state, "square", square, new).rsqrt()
        rows = _moved(state, "rows", square.mean(-1, keepdim=True), new)
        columns = _moved(state, "columns", square.mean(-2, keepdim=True), new)
        # Two factors, since the product of two small moments would underflow.
        return gradient * (rows / rows.mean(-2, keepdim=True)).rsqrt() * columns.rsqrt()


def _moved(state: dict[str, Any], entry: str, value: Tensor, share: float) -> Tensor:
    """Move a moving average of the state towards a value, and return it."""
    if entry not in state:
        state[entry] = torch.zeros_like(value)
    average: Tensor = state[entry].lerp_(value, share)
    return average


def _rms(tensor: Tensor) -> Tensor:
    """Return the root mean square of each matrix, with its dimensions; of a vector or number, that of all entries."""
    mean = tensor.square().mean((-2, -1), keepdim=True) if tensor.ndim >= 2 else tensor.square().mean()
    return mean.sqrt()
