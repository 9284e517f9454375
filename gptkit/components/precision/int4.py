"""Precision `int4`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.patterns import matches
from gptkit.kinds.precision import Activations, PrecisionSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.nn.packed import PackedMatrix

__all__ = ["Int4Spec"]


class Int4Spec(PrecisionSpec):
    """Integers of 4 bits with a scale and an offset for each group of columns: about 5 bits a weight.

    Formula:
        W[o, i] ≈ scale[o, g] · (q[o, i] − 8) + offset[o, g] with q in 0 … 15, g = ⌊i / group⌋
        scale and offset minimize Σ (W − Ŵ)² of the group

    Shapes:
        weight (rows, columns) → values (rows, ⌈columns / 2⌉), two columns in a byte; scale, offset (rows, groups), bf16

    Notes:
        `clip` ranges of each group are tried, from all its weights down to two thirds of them, and `refine` times the scale
        and the offset are fitted to the integers by least squares; the best of all is taken. It costs a few seconds once
        for a model of 135M parameters, and a stored run needs none of it.

        With a calibration text, the integers of a matrix are chosen such that their errors compensate one another for the
        inputs that it has (GPTQ), and scale and offset minimize Σ E[x²] · (W − Ŵ)².

        The head and the embedding's table are the most sensitive matrices, and have the precision `head`.
    """

    formula: ClassVar[str] = r"""
        \hat{W}_{o,i} = s_{o,g} (q_{o,i} - 8) + b_{o,g} \qquad q \in \{0, \dots, 15\}
        (s, b) = \operatorname{argmin} \sum (W - \hat{W})^2 \qquad g = \lfloor i / \text{group} \rfloor
    """

    name: Literal["int4"] = "int4"
    group: Literal[32, 64, 128, 256] = Field(32, description="Number of columns that share a scale and an offset.")
    clip: int = Field(2, ge=1, le=100, description="Number of ranges that are tried for each group; 1: its whole range.")
    refine: int = Field(2, ge=0, le=20, description="Number of least-squares fits of scale and offset for each range.")
    activations: Activations = Field(
        "auto",
        description="Dtype of activations and norms; auto is bf16 where the device has it natively, else fp32.",
    )
    head: PrecisionSpec = component("int8", description="Precision of the matrices of head and embedding.")
    sensitive: tuple[str, ...] = Field(
        (),
        description="Further matrices in the precision `head`: glob patterns over the names of modules, such as *.down or "
        "blocks.0.*.",
    )

    tolerance: ClassVar[float] = 0.14
    calibrated: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"group": 64, "clip": 1, "refine": 0, "head": "int4"})

    @property
    def dtype_choice(self) -> Activations:
        return self.activations

    def for_matrix(self, name: str) -> PrecisionSpec:
        outer = name.partition(".")[0] in ("head", "embedding")
        sensitive = outer or any(matches(name, pattern) for pattern in self.sensitive)
        return self.head if sensitive and self.head.name != self.name else self

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        from gptkit.components.precision.modules.int4 import quantize

        return quantize(weight_OI, self.group, self.clip, self.refine)

    def calibrate(self, weight_OI: Tensor, moments_II: Tensor) -> dict[str, Tensor]:
        from gptkit.components.precision.modules.int4 import calibrate

        return calibrate(weight_OI, moments_II, self.group, self.clip, self.refine)

    def dequantize(self, stored: Mapping[str, Tensor], n_columns: int) -> Tensor:
        from gptkit.components.precision.modules.int4 import dequantize

        return dequantize(stored, n_columns, self.group)

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        from gptkit.components.precision.modules.int4 import Int4Matrix
        from gptkit.nn.packed import StoredMatrix

        as_stored = StoredMatrix(self, stored, n_columns, dtype)
        if stored["values"].device.type != "cpu":
            return as_stored
        return Int4Matrix(stored, n_columns, self.group, dtype, as_stored if lookup else None)
