"""`xielu`: an activation with learned slopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["XieluSpec"]


class XieluSpec(ActivationSpec):
    """Expanded integral of the exponential linear unit: quadratic above zero, with two learned slopes (Apertus).

    Formula:
        f(x) = α_p · x² + β · x for x > 0;  α_n · (exp(min(x, ε)) − 1 − x) + β · x otherwise
        α_p = softplus(positive), α_n = β + softplus(negative), one number each per feed-forward

    Paper:
        https://arxiv.org/abs/2411.13010

    Notes:
        β and ε are stored with the weights, and are not trained.
    """

    formula: ClassVar[str] = r"""
        f(x) = \beta x + \begin{cases} \alpha_p x^2 & x > 0 \\
        \alpha_n (e^{\min(x, \epsilon)} - 1 - x) & x \le 0 \end{cases}
        \alpha_p = \operatorname{softplus}(p) \qquad \alpha_n = \beta + \operatorname{softplus}(n)
    """

    name: Literal["xielu"] = "xielu"
    external_names: ClassVar[tuple[str, ...]] = ("xielu",)

    positive: float = Field(0.8, gt=0, description="Initial α_p.")
    negative: float = Field(0.8, gt=0, description="Initial α_n, more than beta.")
    beta: float = Field(0.5, ge=0, description="β: the slope at zero.")
    eps: float = Field(-1e-6, le=0, description="ε: the largest exponent, for precision.")

    @model_validator(mode="after")
    def _slopes(self) -> Self:
        if self.negative <= self.beta:
            raise ValueError(f"negative is {self.negative}, and beta is {self.beta}; α_n is more than β")
        return self

    def build(self, context: BuildContext) -> nn.Module:
        from gptkit.components.activation.modules.xielu import Xielu

        return Xielu(self)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.activation.written.xielu import xielu

        return xielu(self)
