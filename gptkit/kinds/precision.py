"""Kind `precision`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.core.component import Component

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.nn.packed import PackedMatrix

__all__ = ["Activations", "PrecisionSpec"]

Activations = Literal["auto", "bf16", "fp32"]
"""The dtype of activations, norms and products; `auto` is bf16 where the device computes in it natively, else fp32."""


class PrecisionSpec(Component):
    """Form in which a loaded model's weight matrices are stored and multiplied for inference.

    A precision converts a matrix (rows, columns) in fp32 to named tensors, which a file may hold, and back. It applies to
    the projections of blocks (`context.linear`), the stacked experts of mixtures, the table of the embedding, and the
    matrix of the head. Norms, biases, routers and what else is small are kept in the dtype of the activations, and
    a router's selection bias in fp32.

    Shapes:
        weight (rows, columns) → tensors whose first dimension is rows
        product: (…, columns) → (…, rows)

    Requirements:
        `quantize` is deterministic, and each row is converted by itself: the rows of the tensors are those of the matrix,
        so that a few of them can be looked up, and the matrices of several experts are one;
        the product equals that with the dequantized matrix up to the rounding of the dtype of the activations;
        for matrices and inputs with normally distributed elements, its error relative to fp32 is at most `tolerance`;
        the tensors of `calibrate` have the names, dtypes and shapes of those of `quantize`, and the products with inputs of
        the given second moments have a smaller error if `calibrated` is set.

    Declared capabilities:
        tolerance: the largest error ‖ŷ − y‖ / ‖y‖ for such matrices and inputs;
        calibrated: `calibrate` uses the second moments. Without it, matrices are rounded to nearest in any case.
    """

    kind: ClassVar[str] = "precision"
    commands: ClassVar[tuple[str, ...]] = (
        "gptkit generate RUN --precision {name}",
        "gptkit quantize RUN --precision {name}",
    )
    runtime: ClassVar[str] = "gptkit.nn.packed:PackedMatrix"
    tolerance: ClassVar[float]
    calibrated: ClassVar[bool] = False

    @property
    def dtype_choice(self) -> Activations:
        """The dtype of the activations."""
        return "auto"

    def limitation(self, device: str) -> str | None:
        """Return why it cannot be used on a device type (``cpu``, ``cuda``, ``mps``), as a clause; None if it can."""
        return None

    def for_matrix(self, name: str) -> PrecisionSpec:
        """Return the precision of one matrix: another one for those that are sensitive, by default this one.

        Args:
            name: the name of its module, ``blocks.0.attention.qkv``; ``embedding.table`` for the table of the embedding,
                which a tied head multiplies with, and ``head`` for the matrix of a head that is not tied.
        """
        return self

    @abstractmethod
    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        """Return the tensors that represent a matrix in fp32, by name; the first dimension of each counts its rows."""

    def calibrate(self, weight_OI: Tensor, moments_II: Tensor) -> dict[str, Tensor]:
        """Return the tensors that represent a matrix, chosen for the inputs that it is multiplied with.

        Args:
            weight_OI: the matrix in fp32.
            moments_II: the mean of x · xᵀ over these inputs, in fp32.

        Returns:
            As `quantize`, whose result is the default. Rows do not depend on one another here either.
        """
        return self.quantize(weight_OI)

    @abstractmethod
    def dequantize(self, stored: Mapping[str, Tensor], n_columns: int) -> Tensor:
        """Return the matrix (rows, columns) in fp32 that some rows of the tensors of `quantize` represent."""

    @abstractmethod
    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        """Return the module that multiplies with the matrix. `StoredMatrix` dequantizes it for each product.

        Args:
            stored: the tensors of `quantize`, on the device of the model.
            n_columns: number of columns of the matrix.
            dtype: the dtype of inputs and outputs.
            lookup: rows are looked up too (the table of an embedding).
        """
