"""SOAP for matrices and stacks of matrices.

Shapes: X matrices, R rows, C columns; a parameter is (R, C) or (X, R, C).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.components.optimizer.modules.base import ParameterByParameter
from gptkit.components.optimizer.modules.whole import require_whole

__all__ = ["SOAP"]


class SOAP(ParameterByParameter):
    """Adam in the eigenbasis of Shampoo's preconditioner.

    Args:
        betas: decay rates of the moving averages of the gradient and of its square.
        preconditioner_beta: decay rate of the preconditioners.
        eps: added to the denominator.
        every: number of steps between two updates of the eigenvectors.
        max_dimension: longest side with a preconditioner.

    Raises:
        TrainingError: the parameters are sharded.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        preconditioner_beta: float,
        eps: float,
        every: int,
        max_dimension: int,
    ) -> None:
        super().__init__(params, lr=lr)
        self.betas = betas
        self.preconditioner_beta = preconditioner_beta
        self.eps = eps
        self.every = every
        self.max_dimension = max_dimension
        require_whole("soap", self)

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = gradient.to(torch.promote_types(parameter.dtype, torch.float32))
        if not state:
            state["step"] = 0
            state["average"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
        state["step"] += 1
        self._precondition(gradient, state)
        average, square, (beta1, beta2) = state["average"], state["square"], self.betas
        average.lerp_(gradient, 1 - beta1)
        square.lerp_(_rotated(gradient, state).square(), 1 - beta2)
        mean = _rotated(average, state) / (1 - beta1 ** state["step"])
        denominator = (square / (1 - beta2 ** state["step"])).sqrt_().add_(self.eps)
        update = _rotated(mean.div_(denominator), state, back=True)
        self.descend(parameter, update.to(parameter.dtype), group)

    def _precondition(self, gradient: Tensor, state: dict[str, Any]) -> None:
        """Update the preconditioners, and the eigenvectors if it is time."""
        for side, matrix in (("left", gradient), ("right", gradient.mT)):
            if matrix.shape[-2] > self.max_dimension:
                continue
            outer, first = matrix @ matrix.mT, f"{side}_basis" not in state
            if first:
                state[side] = torch.zeros_like(outer)
            preconditioner = state[side].lerp_(outer, 1 - self.preconditioner_beta)
            if first:
                state[f"{side}_basis"] = torch.linalg.eigh(preconditioner).eigenvectors.flip(-1).contiguous()
            elif state["step"] % self.every == 0:
                self._iterate(side, state)

    def _iterate(self, side: str, state: dict[str, Any]) -> None:
        """Take one power iteration of the eigenvectors of one side, in the order of their estimated eigenvalues."""
        preconditioner, basis = state[side], state[f"{side}_basis"]
        values = (basis * (preconditioner @ basis)).sum(-2)
        order = values.argsort(dim=-1, descending=True, stable=True)
        basis = basis.take_along_dim(order.unsqueeze(-2), -1)
        # The second moments belong to eigenvectors: their rows (left) or columns (right) are reordered in the same way.
        index = order.unsqueeze(-1 if side == "left" else -2)
        state["square"] = state["square"].take_along_dim(index, -2 if side == "left" else -1).contiguous()
        state[f"{side}_basis"] = torch.linalg.qr(preconditioner @ basis).Q.contiguous()


def _rotated(matrix: Tensor, state: dict[str, Any], *, back: bool = False) -> Tensor:
    """Return a new matrix, rotated into the eigenbases or back; sides without a basis remain as they are."""
    left, right = state.get("left_basis"), state.get("right_basis")
    result = matrix.clone() if left is None and right is None else matrix
    if left is not None:
        result = (left if back else left.mT) @ result
    if right is not None:
        result = result @ (right.mT if back else right)
    return result
