"""Muon for stacks of matrices, such as the weights of a layer's experts.

Shapes: X matrices, R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["StackedMuon"]

_COEFFICIENTS = (3.4445, -4.775, 2.0315)


class StackedMuon(torch.optim.Optimizer):
    """`torch.optim.Muon` applied to every matrix of tensors (X, R, C), all matrices of a tensor at once.

    Args:
        match_rms: scale updates to the size of AdamW's; otherwise by the shape of a matrix.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        match_rms: bool,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.match_rms = match_rms

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        gradient, state, momentum = parameter.grad, self.state[parameter], group["momentum"]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        direction_XRC = orthogonalize(gradient.lerp(buffer, momentum) if self.nesterov else buffer, self.ns_steps)
        rows, columns = parameter.shape[-2:]
        ratio = 0.2 * math.sqrt(max(rows, columns)) if self.match_rms else math.sqrt(max(1, rows / columns))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction_XRC, alpha=-group["lr"] * ratio)


def orthogonalize(matrices_XRC: Tensor, steps: int) -> Tensor:
    """Orthogonalize each matrix by Newton-Schulz iterations in bf16; a matrix of zeros remains zero."""
    a, b, c = _COEFFICIENTS
    flat = matrices_XRC.shape[-2] > matrices_XRC.shape[-1]
    result = matrices_XRC.bfloat16()
    result = result.mT if flat else result
    result = result / result.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = result @ result.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        result = torch.baddbmm(result, update, result, beta=a)
    return result.mT if flat else result
