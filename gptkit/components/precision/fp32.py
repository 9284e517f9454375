"""Precision `fp32`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.precision import Activations, PrecisionSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.nn.packed import PackedMatrix

__all__ = ["FP32Spec"]


class FP32Spec(PrecisionSpec):
    """Single precision: 32 bits a weight, the reference of the other precisions.

    Shapes:
        weight (rows, columns) → values (rows, columns), fp32
    """

    formula: ClassVar[str] = r"\hat{w} = \pm 2^{e} (1 + m / 2^{23})"

    name: Literal["fp32"] = "fp32"
    tolerance: ClassVar[float] = 1e-5

    @property
    def dtype_choice(self) -> Activations:
        return "fp32"

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        return {"values": weight_OI.float()}

    def dequantize(self, stored: Mapping[str, Tensor], n_columns: int) -> Tensor:
        return stored["values"]

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        from gptkit.components.precision.modules.plain import PlainMatrix

        return PlainMatrix(stored["values"], dtype)
