"""Modules with a packed matrix, which replace those with a weight when a precision is applied to a model.

Shapes: M rows of inputs, X experts, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gptkit.core.errors import StateError
from gptkit.nn.linear import TransformedLinear
from gptkit.nn.packed import PackedMatrix
from gptkit.ops.grouped import Groups, expert_slices, grouped_linear

__all__ = ["PackedEmbedding", "PackedLinear", "PackedStack"]


class PackedLinear(nn.Module):
    """A linear projection with a packed matrix, in place of an `nn.Linear`.

    Args:
        packed: the matrix.
        bias_O: the bias, or None.
        source: the projection that it replaces, whose `transformed_input` remains in use.
    """

    def __init__(self, packed: PackedMatrix, bias_O: Tensor | None, source: nn.Linear | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = packed.n_columns, packed.n_rows
        self.packed = packed
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach().to(packed.dtype), requires_grad=False)
        self.inputs = stripped(source) if isinstance(source, TransformedLinear) and transforms_input(source) else None

    @property
    def weight(self) -> Tensor:
        """The matrix that the packed one stands for, computed from scratch."""
        return self.packed.dense()

    def forward(self, x: Tensor) -> Tensor:
        if self.inputs is not None:
            x = self.inputs.transformed_input(x)
        return self.packed(x, self.bias)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"bias={self.bias is not None}"


def transforms_input(module: TransformedLinear) -> bool:
    """Return whether a projection multiplies its matrix with something else than its input."""
    return type(module).transformed_input is not TransformedLinear.transformed_input


def stripped(module: TransformedLinear) -> TransformedLinear:
    """Remove the weight and the bias of a projection, of which only `transformed_input` remains in use."""
    for name in ("weight", "bias"):
        module.register_parameter(name, None)
    return module


class PackedEmbedding(nn.Module):
    """A table with a packed matrix, in place of an `nn.Embedding`."""

    def __init__(self, packed: PackedMatrix) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = packed.n_rows, packed.n_columns
        self.packed = packed

    @property
    def weight(self) -> Tensor:
        """The table that the packed one stands for, computed from scratch."""
        return self.packed.dense()

    def forward(self, ids: Tensor) -> Tensor:
        return self.packed.rows(ids)


class PackedStack(nn.Module):
    """Linear projections of X experts with packed matrices, in place of a `gptkit.nn.stacked.StackedLinear`.

    On the CPU, each expert that has rows multiplies them with its matrix. Elsewhere, and when compiled, all matrices are
    dequantized for a grouped product, whose shapes do not depend on the routing.

    Args:
        experts: the matrix of each expert.
        bias_XO: the biases, or None.
    """

    def __init__(self, experts: Sequence[PackedMatrix], bias_XO: Tensor | None) -> None:
        super().__init__()
        self.n_experts = len(experts)
        self.in_features, self.out_features = experts[0].n_columns, experts[0].n_rows
        self.experts = nn.ModuleList(experts)
        dtype = experts[0].dtype
        self.bias = None if bias_XO is None else nn.Parameter(bias_XO.detach().to(dtype), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The stacked matrices that the packed ones stand for, (X, O, I), computed from scratch."""
        return torch.stack([expert.dense() for expert in self.experts])  # type: ignore[operator]

    def forward(self, x_MI: Tensor, groups: Groups) -> Tensor:
        """(M, I) to (M, O)."""
        if torch.compiler.is_exporting():
            # The graph would dequantize the matrices of all experts for each token.
            raise StateError("experts with packed matrices are computed by a loop over the chosen ones")
        if x_MI.device.type != "cpu" or torch.compiler.is_compiling():
            weight_XOI = self.weight
            return grouped_linear(x_MI.to(weight_XOI.dtype), weight_XOI, self.bias, groups)
        products = [
            self.experts[expert](x_MI[first:end]) for expert, first, end in expert_slices(groups.ends_X) if end > first
        ]
        n_outside = x_MI.shape[0] - sum(len(product) for product in products)
        y_MO = torch.cat([*products, x_MI.new_zeros(n_outside, self.out_features)])
        return y_MO if self.bias is None else groups.within(y_MO + self.bias[groups.expert_M])

    def extra_repr(self) -> str:
        return f"{self.n_experts} × {self.in_features} → {self.out_features}, bias={self.bias is not None}"
