"""Matrices of weights in the form that a precision gives them for inference.

Shapes: O rows of a matrix (outputs), I columns (inputs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.core.errors import StateError

if TYPE_CHECKING:
    from gptkit.kinds.precision import PrecisionSpec

__all__ = ["Matrix", "PackedMatrix", "StoredMatrix", "as_tensor", "for_compiler", "linear", "most_rows"]


class PackedMatrix(nn.Module, ABC):
    """The runtime part of a precision: a matrix (O, I) that is multiplied, and of which rows are looked up.

    It holds buffers and no parameters, stays on its device and in its dtype, and has no gradients.

    Args:
        n_rows: O.
        n_columns: I.
        dtype: the dtype of inputs and outputs.
    """

    def __init__(self, n_rows: int, n_columns: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.n_rows = n_rows
        self.n_columns = n_columns
        self.dtype = dtype

    @abstractmethod
    def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """Return W · x + b, (…, I) to (…, O), for inputs of the matrix's dtype.

        It is traced by `torch.compile`: it consists of tensor operations and of custom operators with fake implementations.
        """

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the matrix (O, I) in its dtype, computed from scratch."""

    def rows(self, ids: Tensor) -> Tensor:
        """Return some rows, (…) to (…, I)."""
        return self.dense()[ids]

    def prepare_compiler(self) -> None:
        """Prepare `multiply` for tracing; called once before a model is compiled. By default nothing."""

    def forward(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """Return `multiply`, for inputs of any dtype.

        Raises:
            StateError: a gradient of the input is required.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise StateError(
                "a model in a precision for inference has no gradients",
                hint="Load the run without a precision to train it.",
            )
        return self.multiply(x if x.dtype == self.dtype else x.to(self.dtype), bias_O)

    @property
    def n_bytes(self) -> int:
        """Size in memory."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedMatrix:
        device = next(self.buffers()).device
        probe = fn(torch.empty(0, dtype=self.dtype, device=device))
        if probe.device != device or probe.dtype != self.dtype:
            raise StateError(
                "a model in a precision for inference cannot be moved to another device or dtype",
                hint="Load the run again: gptkit.load(RUN, device=…, precision=…).",
            )
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> PackedMatrix:
        """Return the matrix itself: it never changes, so copies of a model share it."""
        return self

    def extra_repr(self) -> str:
        return f"{self.n_rows} × {self.n_columns}, {self.dtype}".replace("torch.", "")


class StoredMatrix(PackedMatrix):
    """A matrix that is dequantized for each product: for every precision and every device.

    Args:
        spec: the precision.
        stored: the tensors that represent the matrix.
        n_columns, dtype: as for `PackedMatrix`.
    """

    def __init__(self, spec: PrecisionSpec, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype) -> None:
        super().__init__(len(next(iter(stored.values()))), n_columns, dtype)
        self.spec = spec
        self.names = tuple(stored)
        for name, tensor in stored.items():
            self.register_buffer(f"stored_{name}", tensor, persistent=False)

    @property
    def stored(self) -> dict[str, Tensor]:
        """The tensors that represent the matrix."""
        return {name: self.get_buffer(f"stored_{name}") for name in self.names}

    def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
        return F.linear(x, self.dense(), bias_O)

    def dense(self) -> Tensor:
        return self.spec.dequantize(self.stored, self.n_columns).to(self.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        chosen = {name: tensor[ids.flatten()] for name, tensor in self.stored.items()}
        return self.spec.dequantize(chosen, self.n_columns).to(self.dtype).view(*ids.shape, self.n_columns)


Matrix = Tensor | PackedMatrix
"""A matrix of weights, packed or not."""


def linear(x: Tensor, matrix: Matrix, bias_O: Tensor | None = None) -> Tensor:
    """Return W · x + b, as `F.linear`, for a matrix that may be packed."""
    if isinstance(matrix, Tensor):
        return F.linear(x, matrix, bias_O)
    product: Tensor = matrix(x, bias_O)
    return product


def as_tensor(matrix: Matrix) -> Tensor:
    """Return the matrix itself, or what a packed one stands for."""
    return matrix if isinstance(matrix, Tensor) else matrix.dense()


def most_rows(fastest: int) -> int:
    """Return the number of rows up to which a product of integers is used in place of the dequantized matrix.

    A compiled decode step has one form for all batches of up to 64 rows, so a branch below would make it several.

    Args:
        fastest: the number up to which it is faster.
    """
    return 64 if torch.compiler.is_compiling() else fastest


def for_compiler(model: nn.Module) -> None:
    """Prepare the packed matrices of a model for `torch.compile`; call it once before compiling."""
    for module in model.modules():
        if isinstance(module, PackedMatrix):
            module.prepare_compiler()
