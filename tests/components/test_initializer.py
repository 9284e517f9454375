"""Initializers: the standard deviation of each formula, by role."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from gptkit.components.initializer.normal import NormalSpec
from gptkit.components.initializer.orthogonal import OrthogonalSpec
from gptkit.components.initializer.scaled import ScaledSpec
from gptkit.components.initializer.small import SmallSpec
from gptkit.components.initializer.truncated_normal import TruncatedNormalSpec
from gptkit.components.initializer.xavier import XavierSpec
from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec
from gptkit.model.initialize import initialize
from gptkit.nn.initial import Role

CONTEXT = BuildContext(d_model=64, context_length=8, n_layers=8, vocab_size=100)
OUT, IN = 300, 200
DEPTH = math.sqrt(16)


def fill(spec: InitializerSpec, role: Role, shape: tuple[int, ...] = (OUT, IN), seed: int = 0) -> torch.Tensor:
    return spec.fill(role, torch.Size(shape), torch.Generator().manual_seed(seed), CONTEXT)


SPREADS: list[tuple[Any, float, float, float]] = [
    # spec, std of a weight, of an output, of an embedding
    (NormalSpec(), 0.02, 0.02 / DEPTH, 0.02),
    (NormalSpec(std=0.5, scale_outputs=False), 0.5, 0.5, 0.5),
    (ScaledSpec(), IN**-0.5, IN**-0.5 / DEPTH, 0.02),
    (ScaledSpec(gain=2, embedding_std=1, scale_outputs=False), 2 * IN**-0.5, 2 * IN**-0.5, 1),
    (XavierSpec(), math.sqrt(2 / (OUT + IN)), math.sqrt(2 / (OUT + IN)) / DEPTH, 0.02),
    (XavierSpec(gain=3, scale_outputs=False), 3 * math.sqrt(2 / (OUT + IN)), 3 * math.sqrt(2 / (OUT + IN)), 0.02),
    (SmallSpec(), math.sqrt(2 / (5 * 64)), 2 / (8 * 8), math.sqrt(2 / (5 * 64))),
    (SmallSpec(scale_outputs=False), math.sqrt(2 / (5 * 64)), math.sqrt(2 / (5 * 64)), math.sqrt(2 / (5 * 64))),
]


@pytest.mark.parametrize(("spec", "weight", "output", "embedding"), SPREADS, ids=lambda value: str(value))
def test_standard_deviations_equal_the_formula(
    spec: InitializerSpec, weight: float, output: float, embedding: float
) -> None:
    for role, std in (("weight", weight), ("output", output), ("embedding", embedding)):
        values = fill(spec, role)  # type: ignore[arg-type]
        assert values.dtype == torch.float32
        assert values.shape == (OUT, IN)
        assert values.std().item() == pytest.approx(std, rel=0.02)
        assert abs(values.mean().item()) < 0.02 * std
        # Normal, not uniform: 4.6 % lie beyond two deviations.
        assert (values.abs() > 2 * std).float().mean().item() == pytest.approx(0.0455, abs=0.005)


def test_truncated_normal_stays_within_its_bound() -> None:
    for role, std in (("weight", 0.1), ("output", 0.1 / DEPTH)):
        values = fill(TruncatedNormalSpec(std=0.1, cut=1.5), role)  # type: ignore[arg-type]
        assert values.abs().max() <= 1.5 * std + 1e-6
        assert values.abs().max() > 1.45 * std
        assert values.std().item() == pytest.approx(0.7426 * std, rel=0.02)
    assert fill(TruncatedNormalSpec(scale_outputs=False), "output").std().item() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (3, 30, 20)])
def test_orthogonal_matrices_are_orthogonal(shape: tuple[int, ...]) -> None:
    for role, length in (("weight", 2.0), ("output", 2.0 / DEPTH)):
        for matrix in fill(OrthogonalSpec(gain=2), role, shape).view(-1, *shape[-2:]):  # type: ignore[arg-type]
            tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
            torch.testing.assert_close(tall.T @ tall, torch.eye(20) * length**2, rtol=0, atol=1e-5)
    assert fill(OrthogonalSpec(), "embedding").std().item() == pytest.approx(0.02, rel=0.03)


ALL = [NormalSpec(), TruncatedNormalSpec(), ScaledSpec(), XavierSpec(), SmallSpec(), OrthogonalSpec()]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_values_depend_on_the_generator_only(spec: InitializerSpec) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fill(spec, "weight", (20, 10))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(fill(spec, "weight", (20, 10)), first)
    assert not torch.equal(fill(spec, "weight", (20, 10), seed=1), first)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
@pytest.mark.parametrize("shape", [(7,), (4, 6, 5)])
def test_vectors_and_stacks_are_filled(spec: InitializerSpec, shape: tuple[int, ...]) -> None:
    values = fill(spec, "weight", shape)
    assert values.shape == shape
    assert values.isfinite().all()
    assert values.std() > 0


def test_initialization_of_the_wrong_shape_names_the_parameter() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.empty(4, 3))

        def initial(self) -> Any:
            return {"gate": lambda shape, generator: torch.ones(3, 1)}

    scheme = default_registry().component("initializer", "normal").model_validate({"name": "normal"})
    with pytest.raises(GptkitError, match=r"parameter 'part\.gate' returns shape \(3, 1\), not \(4, 3\)"):
        initialize(nn.ModuleDict({"part": Gated()}), scheme, CONTEXT, seed=0)
