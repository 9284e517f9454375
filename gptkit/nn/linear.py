"""Bases of linear projections that do more than a dense product."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AdaptedLinear", "TransformedLinear"]


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


class AdaptedLinear(TransformedLinear):
    """A dense projection with trainable adapters beside its weight, into which they can be merged.

    `weight` and `bias` are those of the dense projection, so that its weights load under the same names. A training
    freezes them, and everything else but the adapters, unless `training.freeze` says otherwise. A subclass implements
    `adapter_parameters` and `transformed_weight`, which returns the merged weight: the product with it equals `forward` in
    evaluation mode.
    """

    def adapter_parameters(self) -> Sequence[str]:
        """Return the names of the parameters that are the adapter's own; none where this projection has no adapter."""
        raise NotImplementedError

    def placed(self, name: str) -> None:
        """Receive the projection's full name in the model, ``blocks.0.attention.qkv``, when the model is assembled."""
