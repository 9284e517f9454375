"""Precision `bf16`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.precision import Activations, PrecisionSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.nn.packed import PackedMatrix

__all__ = ["BF16Spec"]


class BF16Spec(PrecisionSpec):
    """Half precision with the range of fp32 (bfloat16): 16 bits a weight, of which 8 are significant.

    Shapes:
        weight (rows, columns) → values (rows, columns), bf16

    Notes:
        On a CPU that computes in bf16, a matrix is reordered once for oneDNN's product, which is up to twice as fast as the
        plain one for a few rows. Elsewhere the product is torch's.
    """

    formula: ClassVar[str] = r"\hat{w} = \pm 2^{e} (1 + m / 2^7) \qquad m \in \{0, \dots, 127\}"

    name: Literal["bf16"] = "bf16"
    tolerance: ClassVar[float] = 0.01

    @property
    def dtype_choice(self) -> Activations:
        return "bf16"

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        return {"values": weight_OI.bfloat16()}

    def dequantize(self, stored: Mapping[str, Tensor], n_columns: int) -> Tensor:
        return stored["values"].float()

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        from gptkit.components.precision.modules.plain import PlainMatrix, ReorderedMatrix, reorders

        values = stored["values"]
        return ReorderedMatrix(values, keep=lookup) if reorders(values, dtype) else PlainMatrix(values, dtype)
