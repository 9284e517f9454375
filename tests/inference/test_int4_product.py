"""The compiled product with 4-bit weights, against the same product in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.precision.int4 import Int4Spec
from gptkit.inference.compiled.int4_product import define_int4_product, replace_int4, supported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not supported(), reason="the CPU has no AVX-512 VNNI, or inductor does not compile for it"),
]


@pytest.fixture(scope="module")
def compiled() -> Any:
    """The operator, compiled for any number of rows of inputs; once for each shape of weights."""
    define_int4_product()

    def product(x: Tensor, matrix: Any) -> Tensor:
        result: Tensor = torch.ops.gptkit.int4_product(x, matrix.integers, matrix.group, matrix.scales)
        return result

    torch._dynamo.reset()
    yield torch.compile(product, dynamic=True)
    torch._dynamo.reset()


def bf16(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize(("rows", "columns", "group"), [(192, 96, 32), (16, 64, 64), (80, 256, 128), (112, 512, 256)])
def test_product_is_that_of_fp64_up_to_the_rounding_of_bf16(compiled: Any, rows: int, columns: int, group: Any) -> None:
    spec = Int4Spec(group=group)
    stored = spec.quantize(bf16(rows, columns, seed=1).float())
    matrix, weight_OI = spec.build(stored, columns, torch.bfloat16), spec.dequantize(stored, columns).double()
    for n_inputs in (1, 2, 5, 70):
        x = bf16(n_inputs, columns, seed=n_inputs)
        x[:, ::7] *= 50  # a group's step is that of its largest input
        if n_inputs > 1:
            x[1] = 0
        wanted = x.double() @ weight_OI.T
        error = (compiled(x, matrix).double() - wanted).abs()
        # Half a spacing of bf16 for the result, and for each group a half of its inputs' step with the weights' sum.
        steps = x.double().view(n_inputs, -1, 32).abs().amax(-1) / 16256
        sums = weight_OI.abs().view(rows, -1, 32).sum(-1)
        assert bool((error <= wanted.abs() * 2**-8 + steps @ sums.T / 2 + 1e-4).all())


def test_graph_calls_it_for_bf16_only() -> None:
    def traced(dtype: torch.dtype) -> list[Any]:
        spec = Int4Spec()
        matrix = spec.build(spec.quantize(bf16(64, 64, seed=1).float()), 64, dtype)

        class Product(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.matrix = matrix

            def forward(self, x: Tensor) -> Tensor:
                result: Tensor = self.matrix(x)
                return result

        module: Any = torch.export.export(Product(), (torch.zeros(1, 64, dtype=dtype),), strict=False).graph_module
        replace_int4(module)
        return [node.target for node in module.graph.nodes]

    assert torch.ops.gptkit.int4_product.default in traced(torch.bfloat16)
    assert torch.ops.aten._weight_int4pack_mm_for_cpu.default in traced(torch.float32)
