"""Precision `int8`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.precision import Activations, PrecisionSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.nn.packed import PackedMatrix

__all__ = ["Int8Spec"]


class Int8Spec(PrecisionSpec):
    """Integers of 8 bits with one scale per row: half of bf16's size, with almost no loss.

    Formula:
        W[o, i] ≈ scale[o] · q[o, i] with q in −127 … 127; scale[o] = max |W[o]| / 127
        y[o] = scale[o] · Σ q[o, i] · x[i]

    Shapes:
        weight (rows, columns) → values (rows, columns), int8; scale (rows), bf16

    Notes:
        Weights are rounded, activations are not. The scale is rounded upwards to bf16 before the weights are divided by
        it, so no weight is cut off. With few rows of inputs, torch's product of int8 weights reads each weight once; with
        more, the integers become numbers of the activations' dtype first.

        With a calibration text, the integers are chosen such that their errors compensate one another for the inputs that
        the matrix has (GPTQ).
    """

    formula: ClassVar[str] = r"""
        \hat{W}_{o,i} = s_o\, q_{o,i} \qquad q \in \{-127, \dots, 127\}
        s_o = \frac{\max_i |W_{o,i}|}{127}
    """

    name: Literal["int8"] = "int8"
    activations: Activations = Field(
        "auto",
        description="Dtype of activations and norms; auto is bf16 where the device has it natively, else fp32.",
    )

    tolerance: ClassVar[float] = 0.02
    calibrated: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"activations": "fp32"})

    @property
    def dtype_choice(self) -> Activations:
        return self.activations

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        from gptkit.components.precision.modules.int8 import quantize

        return quantize(weight_OI)

    def calibrate(self, weight_OI: Tensor, moments_II: Tensor) -> dict[str, Tensor]:
        from gptkit.components.precision.modules.int8 import calibrate

        return calibrate(weight_OI, moments_II)

    def dequantize(self, stored: Mapping[str, Tensor], n_columns: int) -> Tensor:
        return stored["values"].float() * stored["scale"].float()[:, None]

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        from gptkit.components.precision.modules.int8 import Int8Matrix

        return Int8Matrix(stored["values"], stored["scale"], dtype)
