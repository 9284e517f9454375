"""Base classes of linear projections that compute more than a dense product."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AdaptedLinear", "TransformedLinear"]


class TransformedLinear(nn.Linear):
    """A projection y = weight(W) · input(x) + b. A subclass overrides one hook or both.

    Both hooks are differentiable (a quantization uses a straight-through estimator). A head calls them separately, to
    compute its loss without holding all logits.
    """

    def transformed_input(self, x: Tensor) -> Tensor:
        """Return the vectors that the matrix is applied to, (…, d_in), of the input's dtype; by default the input."""
        return x

    def transformed_weight(self) -> Tensor:
        """Return the effective matrix, (d_out, d_in), of the weight's dtype; by default the weight."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.transformed_input(x), self.transformed_weight(), self.bias)


class AdaptedLinear(TransformedLinear):
    """A dense projection with trainable adapters beside its weight, into which they can be merged.

    `weight` and `bias` are those of the dense projection, so its weights load under the same names. A training freezes all
    parameters but those of adapters, unless `training.freeze` is set. A subclass implements `adapter_parameters` and
    `transformed_weight`, which returns the merged weight: the product with it equals `forward` in evaluation mode.
    """

    def adapter_parameters(self) -> Sequence[str]:
        """Return the names of the adapter's parameters; none if this projection has no adapter."""
        raise NotImplementedError(f"{type(self).__name__} does not define adapter_parameters")

    def placed(self, name: str) -> None:
        """Called with the projection's full name, ``blocks.0.attention.qkv``, when the model is assembled."""
