"""Base of linear projections that transform their weight or their input before the product."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TransformedLinear"]


class TransformedLinear(nn.Linear):
    """A projection y = weight(W) · input(x) + b. A subclass overrides one hook or both.

    Both hooks are differentiable: a quantization passes the gradient straight through. A head uses them apart, to compute
    its loss without holding all logits.
    """

    def transformed_input(self, x: Tensor) -> Tensor:
        """What the matrix is multiplied with, (…, d_in), of the input's dtype; the input itself by default."""
        return x

    def transformed_weight(self) -> Tensor:
        """The matrix in use, (d_out, d_in), of the weight's dtype; the weight itself by default."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.transformed_input(x), self.transformed_weight(), self.bias)
