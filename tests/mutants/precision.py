"""Precisions with one error each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.precision.bf16 import BF16Spec
from gptkit.components.precision.fp32 import FP32Spec
from gptkit.components.precision.int8 import Int8Spec
from gptkit.components.precision.modules.int8 import Int8Matrix
from gptkit.components.precision.modules.plain import PlainMatrix
from gptkit.kinds.precision import PrecisionSpec
from gptkit.nn.packed import PackedMatrix
from tests.mutants.mutant import Mutant, become


class WrongInt8(Mutant, Int8Spec):
    """An int8 whose matrices are of another class."""

    runtime_class: ClassVar[type[PackedMatrix]]
    twin_class = Int8Spec

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        made: PackedMatrix = become(super().build(stored, n_columns, dtype, lookup=lookup), self.runtime_class)
        return made


class OverstatesItsAccuracy(Mutant, Int8Spec):
    """Declare the tolerance of fp32."""

    name: Literal["overstates-its-accuracy"] = "overstates-its-accuracy"
    tolerance: ClassVar[float] = 1e-4
    caught_by = "close-to-fp32"
    also = ("survives-outliers",)


class ForgetsTheBias(WrongInt8):
    """Multiply without the bias where there are many rows."""

    class Runtime(Int8Matrix):
        def multiply(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
            return super().multiply(x, None if x.numel() > 16 * x.shape[-1] else bias_O)

    runtime_class = Runtime
    name: Literal["forgets-the-bias"] = "forgets-the-bias"
    caught_by = "product-of-its-matrix"
    also = ("close-to-fp32",)


class OneScale(Mutant, Int8Spec):
    """Use one scale for all rows."""

    name: Literal["one-scale"] = "one-scale"
    caught_by = "survives-outliers"
    also = ("row-by-row",)

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        scale = (weight_OI.abs().amax() / 126).bfloat16().expand(len(weight_OI)).contiguous()
        return {"values": (weight_OI / scale[:, None].float()).round().to(torch.int8), "scale": scale}


class CentresTheRows(Mutant, FP32Spec):
    """Store the difference from the mean of all rows, and the mean with each row."""

    name: Literal["centres-the-rows"] = "centres-the-rows"
    tolerance: ClassVar[float] = 1e-2
    caught_by = "row-by-row"
    also = ("survives-outliers", "counts-its-bytes")
    twin_class = FP32Spec

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        mean = weight_OI.mean(0, keepdim=True)
        return {"values": weight_OI - mean, "mean": mean.expand_as(weight_OI).contiguous()}

    def dequantize(self, stored: Mapping[str, Tensor], n_columns: int) -> Tensor:
        return stored["values"] + stored["mean"]

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        return PlainMatrix(self.dequantize(stored, n_columns), dtype)


class NextRow(WrongInt8):
    """Look up the row after the one that is asked for."""

    class Runtime(Int8Matrix):
        def rows(self, ids: Tensor) -> Tensor:
            return super().rows((ids + 1) % self.n_rows)

    runtime_class = Runtime
    name: Literal["next-row"] = "next-row"
    caught_by = "looks-up-rows"
    also = ("packs-a-model",)


class RoundsByChance(Mutant, BF16Spec):
    """Round up or down by chance."""

    name: Literal["rounds-by-chance"] = "rounds-by-chance"
    caught_by = "deterministic"
    also = ("row-by-row",)

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        noise = 1 + (torch.rand(weight_OI.shape) - 0.5) * 2**-7
        return {"values": (weight_OI * noise).bfloat16()}


class ShiftsWhenStored(Mutant, FP32Spec):
    """Represent a matrix that is larger than the given one."""

    name: Literal["shifts-when-stored"] = "shifts-when-stored"
    tolerance: ClassVar[float] = 0.06
    caught_by = "storable"

    def quantize(self, weight_OI: Tensor) -> dict[str, Tensor]:
        return {"values": weight_OI * 1.05}


class CalibratesForOtherInputs(Mutant, Int8Spec):
    """Choose the integers for the inputs in another order."""

    name: Literal["calibrates-for-other-inputs"] = "calibrates-for-other-inputs"
    caught_by = "calibrates"

    def calibrate(self, weight_OI: Tensor, moments_II: Tensor) -> dict[str, Tensor]:
        return super().calibrate(weight_OI, moments_II.flip(0, 1))


class TakesGradients(WrongInt8):
    """Accept inputs that require a gradient."""

    class Runtime(Int8Matrix):
        def forward(self, x: Tensor, bias_O: Tensor | None = None) -> Tensor:
            return self.multiply(x.detach(), bias_O)

    runtime_class = Runtime
    name: Literal["takes-gradients"] = "takes-gradients"
    caught_by = "without-gradients"


class KeepsTheOriginal(Mutant, FP32Spec):
    """Keep the matrix in a second copy."""

    class Runtime(PlainMatrix):
        def __init__(self, values_OI: Tensor, dtype: torch.dtype) -> None:
            super().__init__(values_OI, dtype)
            self.register_buffer("original", values_OI.clone(), persistent=False)

    name: Literal["keeps-the-original"] = "keeps-the-original"
    caught_by = "counts-its-bytes"

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        return self.Runtime(stored["values"], dtype)


class ChangesItsDtype(WrongInt8):
    """Be converted to any dtype."""

    class Runtime(Int8Matrix):
        def _apply(self, fn: object, recurse: bool = True) -> PackedMatrix:
            return self

    runtime_class = Runtime
    name: Literal["changes-its-dtype"] = "changes-its-dtype"
    caught_by = "copies"


class OnlySomeMatrices(Mutant, FP32Spec):
    """Lose a part of the matrices that are named as projections."""

    name: Literal["only-some-matrices"] = "only-some-matrices"
    caught_by = "packs-a-model"

    def for_matrix(self, name: str) -> PrecisionSpec:
        return Emptied() if name.endswith("feedforward.down") else self


class Emptied(FP32Spec):
    """Represent no matrix but zeros when it is built."""

    name: Literal["fp32"] = "fp32"

    def build(
        self, stored: Mapping[str, Tensor], n_columns: int, dtype: torch.dtype, *, lookup: bool = False
    ) -> PackedMatrix:
        return PlainMatrix(torch.zeros_like(stored["values"]), dtype)
