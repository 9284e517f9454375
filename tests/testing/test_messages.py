"""What failed checks say, so that the author of a component finds the cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gptkit.components.feedforward.gated import GatedSpec
from gptkit.components.feedforward.modules.gated import Gated
from gptkit.components.norm.modules.rms import RMSNorm
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.tensor_parallel import Divided, Division
from gptkit.testing import run_checks


def message(spec: Any, check: str) -> str:
    (result,) = run_checks(spec, only=[check])
    assert result.outcome == "failed"
    return result.message


class TabledSpec(RMSNormSpec):
    """Norm with a table in an attribute."""

    name: Literal["tabled-norm"] = "tabled-norm"  # type: ignore[assignment]

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        made = super().build(context, dim=dim)
        made.table = torch.linspace(0.9, 1.1, dim)
        return made


def test_tensor_in_an_attribute_is_named() -> None:
    assert message(TabledSpec(), "builds-on-meta") == (
        "the attribute 'table' of RMSNorm is a tensor, which remains on the meta device, without values; compute it in the "
        "forward pass or on first use, or register it as a buffer"
    )


class Wide(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class WideSpec(RMSNormSpec):
    """Norm that returns fp32."""

    name: Literal["wide-norm"] = "wide-norm"  # type: ignore[assignment]

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        made = super().build(context, dim=dim)
        made.__class__ = Wide
        return made


def test_module_that_returns_another_dtype_is_named() -> None:
    seen = message(WideSpec(), "bf16-and-fp32")
    assert "in bf16 it raised RuntimeError: Wide returned torch.float32 for a torch.bfloat16 input" in seen


class Misfit(Gated):
    def divisions(self) -> Mapping[str, Division]:
        return {**super().divisions(), "down.weight": Divided(-1, {"hidden features": 5})}


class MisfitSpec(GatedSpec):
    """Feed-forward whose division does not fit its sizes."""

    name: Literal["misfit"] = "misfit"  # type: ignore[assignment]
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    def build(self, context: BuildContext) -> Gated:
        made = super().build(context)
        made.__class__ = Misfit
        return made


def test_division_that_does_not_fit_is_named() -> None:
    seen = message(MisfitSpec(d_hidden=32), "sums-over-parts")
    assert seen == (
        "divisions of Misfit divides dimension -1 of down.weight, (32, 32), into 5 hidden features; the sizes do not fit"
    )


class Forgetful(Gated):
    def divisions(self) -> Mapping[str, Division]:
        return {name: each for name, each in super().divisions().items() if name != "down.weight"}


class ForgetfulSpec(MisfitSpec):
    """Feed-forward whose division does not name all parameters."""

    name: Literal["forgetful"] = "forgetful"  # type: ignore[assignment]

    def build(self, context: BuildContext) -> Gated:
        made = super().build(context)
        made.__class__ = Forgetful
        return made


def test_parameter_without_a_division_is_the_reason_of_skipping() -> None:
    (result,) = run_checks(ForgetfulSpec(d_hidden=32), only=["sums-over-parts"])
    assert (result.outcome, result.message) == ("skipped", "the division of its parameter down.weight is not declared")
