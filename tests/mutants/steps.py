"""Modules that training steps change, with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.norm.modules.rms import RMSNorm
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.components.router.sigmoid import SigmoidSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.router import Router
from tests.mutants.mutant import Mutant, WithRuntime


class LeavesOutItsBias(Mutant, SigmoidSpec):
    """Keep the selection bias in a buffer that no checkpoint contains."""

    name: Literal["leaves-out-its-bias"] = "leaves-out-its-bias"
    bias_rate: float = Field(0.05, ge=0, description="Not zero, so that the bias changes.")
    selection_bias: bool = Field(True, description="With a bias.")
    caught_by = "resumes-after-steps"

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        made: Any = super().build(context, n_experts=n_experts)
        bias = made.selection_bias.detach()
        del made.selection_bias
        made.register_buffer("selection_bias", torch.zeros_like(bias), persistent=False)
        return made


class CountedNorm(WithRuntime, RMSNormSpec):
    """Base of norms with the runtime class `runtime_class`."""

    runtime_class: ClassVar[type[RMSNorm]]
    twin_class = RMSNormSpec


class CountsInAnAttribute(CountedNorm):
    """Divide by a number of steps that is counted in an attribute."""

    class Runtime(RMSNorm):
        n_steps = 0

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / (1 + self.n_steps)

        def after_step(self) -> None:
            self.n_steps += 1

    name: Literal["counts-in-an-attribute"] = "counts-in-an-attribute"
    runtime_class = Runtime
    caught_by = "resumes-after-steps"


class KeepsItsFirstWeights(CountedNorm):
    """Compute with the weight of the first evaluation in all later ones."""

    class Runtime(RMSNorm):
        first: Any = None

        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled() or self.weight is None:
                return super().forward(x)
            if self.first is None:
                self.first = self.weight.detach().clone()
            scale = x.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt()
            return x * scale.to(x.dtype) * self.first.to(x.dtype)

    name: Literal["keeps-its-first-weights"] = "keeps-its-first-weights"
    runtime_class = Runtime
    caught_by = "deep-copy"
    also = ("state-dict", "resumes-after-steps")
