"""Muon for matrices and stacks of matrices (a layer's experts), with the options of optimizer `muon`.

Shapes: X matrices, R rows, C columns; a parameter is (R, C) or (X, R, C).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.components.optimizer.modules.base import ParameterByParameter

__all__ = ["NEWTON_SCHULZ", "POLAR_EXPRESS", "Muon", "orthogonalize"]

NEWTON_SCHULZ = ((3.4445, -4.775, 2.0315),)
"""Coefficients of every iteration by Keller Jordan: singular values end between about 0.7 and 1.2."""

_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)

_SAFETY = 1.01
"""Factor by which singular values are assumed to be larger than computed, as in the paper, because of bf16."""

POLAR_EXPRESS = (
    *((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in _POLAR_EXPRESS),
    (1.875, -1.25, 0.375),
)
"""Coefficients of iteration 1, 2, …, those of the last one for all later iterations; arXiv 2505.16932, algorithm 1."""


class Muon(ParameterByParameter):
    """`torch.optim.Muon` for matrices and stacks of matrices, all matrices of a tensor at once, with more options.

    Args:
        match_rms: scale updates to the size of AdamW's; otherwise by the shape of a matrix.
        polar_express: use the coefficients of Polar Express in place of those of Newton-Schulz.
        neuron_beta: decay rate of the second moment of each row of the update, by which rows are divided (NorMuon); None
            for no such normalization.
        cautious: apply weight decay only to entries that the update moves towards zero.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        match_rms: bool,
        polar_express: bool = False,
        neuron_beta: float | None = None,
        cautious: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, cautious=cautious)
        self.momentum = momentum
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.match_rms = match_rms
        self.coefficients = POLAR_EXPRESS if polar_express else NEWTON_SCHULZ
        self.safety = _SAFETY if polar_express else 1.0
        self.neuron_beta = neuron_beta

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - self.momentum)
        averaged = gradient.lerp(buffer, self.momentum) if self.nesterov else buffer
        direction = orthogonalize(averaged, self.ns_steps, self.coefficients, safety=self.safety)
        rows, columns = parameter.shape[-2:]
        ratio = 0.2 * math.sqrt(max(rows, columns)) if self.match_rms else math.sqrt(max(1, rows / columns))
        if self.neuron_beta is not None:
            direction = self._normalized(direction.to(parameter.dtype), state, self.neuron_beta)
            # The normalized update has the root mean square 0.2 that `match_rms` stands for, whatever the rank.
            ratio = 0.2 * math.sqrt(rows * columns) if self.match_rms else ratio
        self.descend(parameter, direction, group, ratio)

    def _normalized(self, direction: Tensor, state: dict[str, Any], beta: float) -> Tensor:
        """Return the update with rows divided by their second moments; its norm is 1 to match AdamW, else unchanged."""
        mean = direction.square().mean(-1, keepdim=True)
        if "neuron_second_moment" not in state:
            state["neuron_second_moment"] = torch.zeros_like(mean)
        moment = state["neuron_second_moment"].lerp_(mean, 1 - beta)
        normalized: Tensor = direction / (moment.sqrt() + 1e-8)
        norm = 1.0 if self.match_rms else direction.norm(dim=(-2, -1), keepdim=True)
        size = normalized.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-8)
        normalized.mul_(norm / size)
        return normalized


def orthogonalize(
    matrices: Tensor,
    steps: int,
    coefficients: Sequence[tuple[float, float, float]] = NEWTON_SCHULZ,
    *,
    safety: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Orthogonalize each matrix by iterations X ← a·X + (b·X·Xᵀ + c·(X·Xᵀ)²)·X; a matrix of zeros remains zero.

    Args:
        matrices: (R, C) or (X, R, C).
        steps: number of iterations.
        coefficients: a, b and c of each iteration; the last ones are those of all later iterations.
        safety: factor of the norm by which a matrix is divided first.
        dtype: precision of the iterations.
    """
    matrices_XRC = matrices if matrices.ndim == 3 else matrices.unsqueeze(0)
    flat = matrices_XRC.shape[-2] > matrices_XRC.shape[-1]
    result = matrices_XRC.to(dtype)
    result = result.mT if flat else result
    result = result / (result.norm(dim=(-2, -1), keepdim=True) * safety).clamp(min=1e-7)
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        gram = result @ result.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        result = torch.baddbmm(result, update, result, beta=a)
    result = result.mT if flat else result
    return result if matrices.ndim == 3 else result.squeeze(0)
