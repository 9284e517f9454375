"""Precisions against formulas in fp64, without torch's packed products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.precision.bf16 import BF16Spec
from gptkit.components.precision.int4 import Int4Spec
from gptkit.components.precision.int8 import Int8Spec
from gptkit.components.precision.modules.int4_layout import Layout, pack


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("n_rows", [1, 16, 17, 70])
@pytest.mark.parametrize(("rows", "columns"), [(96, 64), (37, 53)])
def test_int8_product_is_the_formula(n_rows: int, rows: int, columns: int) -> None:
    weight_OI, x_MI = normal(rows, columns), normal(n_rows, columns, seed=1)
    stored = Int8Spec().quantize(weight_OI)
    scale_O = stored["scale"].double()
    assert bool((stored["values"].abs() <= 127).all())
    assert bool((scale_O >= weight_OI.double().abs().amax(1) / 127).all())
    # Each weight is the nearest of the representable ones.
    nearest = (weight_OI.double() / scale_O[:, None]).round() * scale_O[:, None]
    assert torch.equal(stored["values"].double() * scale_O[:, None], nearest)
    product = Int8Spec(activations="fp32").build(stored, columns, torch.float32)(x_MI)
    assert relative(product, x_MI.double() @ nearest.T) < 1e-6


@pytest.mark.parametrize("n_rows", [1, 80, 81])
@pytest.mark.parametrize(
    ("rows", "columns", "group"), [(128, 64, 32), (81, 53, 32), (48, 300, 128), (210, 96, 32), (16, 64, 64)]
)
def test_int4_product_is_the_formula(n_rows: int, rows: int, columns: int, group: Any) -> None:
    spec = Int4Spec(group=group, activations="fp32")
    weight_OI, x_MI = normal(rows, columns), normal(n_rows, columns, seed=1)
    stored = spec.quantize(weight_OI)
    expected = torch.empty(rows, columns, dtype=torch.float64)
    for column in range(columns):
        byte_O = stored["values"][:, column // 2].int()
        q_O = byte_O >> 4 if column % 2 else byte_O & 15
        scale_O, offset_O = (stored[name][:, column // group].double() for name in ("scale", "offset"))
        expected[:, column] = scale_O * (q_O - 8) + offset_O
    assert relative(spec.dequantize(stored, columns), expected) < 1e-6
    assert relative(spec.build(stored, columns, torch.float32)(x_MI), x_MI.double() @ expected.T) < 1e-6


def test_int4_is_nearer_than_rounding_within_the_whole_range() -> None:
    weight_OI = normal(64, 128) * (1 + normal(64, 128, seed=1).abs())

    def error(**fields: Any) -> float:
        spec = Int4Spec(**fields)
        return relative(spec.dequantize(spec.quantize(weight_OI), 128), weight_OI)

    plain = error(clip=1, refine=0)
    assert error(clip=1) < 0.96 * plain
    assert error() <= error(clip=1)
    assert error(clip=16, refine=4) <= error() < 0.95 * plain


def test_int4_represents_sixteen_equidistant_levels_exactly() -> None:
    levels = torch.arange(32).remainder(16).float()
    weight_OI = torch.stack((levels * 0.5 - 2, levels * 0.25, -levels))
    stored = Int4Spec().quantize(weight_OI)
    assert torch.equal(Int4Spec().dequantize(stored, 32), weight_OI)


def test_sensitive_matrices_have_the_precision_of_the_head() -> None:
    spec = Int4Spec(sensitive=("*.down", "blocks.0"))
    names = ["embedding.table", "head", "blocks.0.attention.qkv", "blocks.1.feedforward.down", "blocks.1.feedforward.up"]
    assert [spec.for_matrix(name).name for name in names] == ["int8", "int8", "int8", "int8", "int4"]
    assert Int4Spec(head="int4").for_matrix("head").name == "int4"


def test_int8_accepts_memory_that_is_not_aligned() -> None:
    weight_OI, x_MI = normal(96, 64), normal(3, 64, seed=1)
    stored = Int8Spec().quantize(weight_OI)
    wanted = Int8Spec().build(stored, 64, torch.float32)(x_MI)
    for offset in (1, 8, 16, 32):
        memory = torch.empty(96 * 64 + offset, dtype=torch.int8)
        moved = memory[offset:].view(96, 64).copy_(stored["values"])
        assert torch.equal(Int8Spec().build({**stored, "values": moved}, 64, torch.float32)(x_MI), wanted)


@pytest.mark.parametrize("rows", [16, 32, 48, 64, 80, 128, 176])
def test_layout_is_reversed(rows: int) -> None:
    q_OI = torch.randint(16, (rows, 64), generator=torch.Generator().manual_seed(rows))
    assert torch.equal(Layout.of(rows, 64).unpack(pack(q_OI)).long(), q_OI)


def test_bf16_gives_the_plain_product() -> None:
    weight_OI, bias_O = normal(33, 50).bfloat16(), normal(33, seed=2).bfloat16()
    matrix = BF16Spec().build({"values": weight_OI}, 50, torch.bfloat16)
    for n_rows in (1, 5, 100):
        x_MI = normal(n_rows, 50, seed=1).bfloat16()
        exact = x_MI.double() @ weight_OI.double().T + bias_O.double()
        assert relative(matrix(x_MI, bias_O), exact) < 0.004
    assert torch.equal(matrix.dense(), weight_OI)
    assert matrix.n_bytes == 2 * 33 * 50


@pytest.mark.parametrize(
    ("spec", "bits"), [(Int8Spec(), 8.1), (Int4Spec(), 5), (Int4Spec(group=128), 4.25), (BF16Spec(), 16)]
)
def test_bits_per_weight(spec: Any, bits: float) -> None:
    matrix = spec.build(spec.quantize(normal(256, 512)), 512, torch.bfloat16)
    assert matrix.n_bytes * 8 / (256 * 512) <= bits


@pytest.mark.parametrize(("rows", "columns"), [(48, 96), (33, 53)])
@pytest.mark.parametrize("spec", [Int4Spec(), Int4Spec(group=64, clip=1, refine=0), Int8Spec()], ids=str)
def test_calibration_lowers_the_error_of_the_products(spec: Int4Spec | Int8Spec, rows: int, columns: int) -> None:
    weight_OI = normal(rows, columns)
    x_MI = normal(400, columns, seed=1) @ (normal(columns, columns, seed=2) * torch.linspace(0.1, 2, columns))
    stored, plain = spec.calibrate(weight_OI, x_MI.T @ x_MI / 400), spec.quantize(weight_OI)
    assert {name: (t.shape, t.dtype) for name, t in stored.items()} == {n: (t.shape, t.dtype) for n, t in plain.items()}
    wanted = x_MI @ weight_OI.T
    calibrated, rounded = (relative(x_MI @ spec.dequantize(each, columns).T, wanted) for each in (stored, plain))
    assert calibrated < 0.8 * rounded


def test_inputs_that_are_zero_need_no_calibration() -> None:
    weight_OI = normal(16, 64)
    stored = Int8Spec().calibrate(weight_OI, torch.zeros(64, 64))
    for name, tensor in Int8Spec().quantize(weight_OI).items():
        assert torch.equal(stored[name], tensor), name
    dequantized = Int4Spec().dequantize(Int4Spec().calibrate(weight_OI, torch.zeros(64, 64)), 64)
    assert relative(dequantized, weight_OI) < 0.2
