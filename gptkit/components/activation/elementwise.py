"""Elementwise activations of language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "CappedSiluSpec",
    "GeluSpec",
    "GeluTanhSpec",
    "IdentitySpec",
    "LeakyReluSpec",
    "QuickGeluSpec",
    "ReluSpec",
    "ReluSquaredSpec",
    "SigmoidSpec",
    "SiluSpec",
    "SoftplusSpec",
    "TanhSpec",
]


class IdentitySpec(ActivationSpec):
    """Identity; a gated feed-forward with it is bilinear.

    Formula:
        f(x) = x
    """

    formula: ClassVar[str] = r"f(x) = x"

    name: Literal["identity"] = "identity"
    external_names: ClassVar[tuple[str, ...]] = ("linear",)

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.Identity()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "$x"})


class ReluSpec(ActivationSpec):
    """Rectified linear unit: negative values become zero.

    Formula:
        f(x) = max(0, x)
    """

    formula: ClassVar[str] = r"f(x) = \max(0, x)"

    name: Literal["relu"] = "relu"
    external_names: ClassVar[tuple[str, ...]] = ("relu",)

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.ReLU()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "F.relu($x)"})


class LeakyReluSpec(ActivationSpec):
    """ReLU with a small slope below zero, so that the gradient never vanishes.

    Formula:
        f(x) = x for x > 0, slope · x otherwise
    """

    formula: ClassVar[str] = r"f(x) = \begin{cases} x & x > 0 \\ \text{slope} \cdot x & x \le 0 \end{cases}"

    name: Literal["leaky-relu"] = "leaky-relu"
    external_names: ClassVar[tuple[str, ...]] = ("leaky_relu",)
    slope: float = Field(0.01, description="The slope below zero.", ge=0)

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.LeakyReLU(self.slope)

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": f"F.leaky_relu($x, {self.slope!r})"}, fields=["slope"])


class ReluSquaredSpec(ActivationSpec):
    """The square of ReLU (Primer, Nemotron).

    Formula:
        f(x) = max(0, x)²

    Paper:
        https://arxiv.org/abs/2109.08668
    """

    formula: ClassVar[str] = r"f(x) = \max(0, x)^2"

    name: Literal["relu-squared"] = "relu-squared"
    external_names: ClassVar[tuple[str, ...]] = ("relu2",)

    def build(self, context: BuildContext) -> nn.Module:
        from gptkit.components.activation.modules.elementwise import ReluSquared

        return ReluSquared()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "F.relu($x).square()"})


class GeluSpec(ActivationSpec):
    """Gaussian error linear unit: every value times the standard normal cumulative distribution function at the value.

    Formula:
        f(x) = x · Φ(x) = x/2 · (1 + erf(x/√2))

    Paper:
        https://arxiv.org/abs/1606.08415
    """

    formula: ClassVar[str] = r"f(x) = x\,\Phi(x) = \frac{x}{2} \left(1 + \operatorname{erf}\frac{x}{\sqrt{2}}\right)"

    name: Literal["gelu"] = "gelu"
    external_names: ClassVar[tuple[str, ...]] = ("gelu",)

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.GELU()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "F.gelu($x)"})


class GeluTanhSpec(ActivationSpec):
    """Approximation of GELU by a hyperbolic tangent, used by GPT-2.

    Formula:
        f(x) = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))

    Paper:
        https://arxiv.org/abs/1606.08415
    """

    formula: ClassVar[str] = r"""
        f(x) = \frac{x}{2} (1 + \tanh u)
        u = \sqrt{\frac{2}{\pi}} \left(x + 0.044715\, x^3\right)
    """

    name: Literal["gelu-tanh"] = "gelu-tanh"
    external_names: ClassVar[tuple[str, ...]] = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.GELU(approximate="tanh")

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": 'F.gelu($x, approximate="tanh")'})


class QuickGeluSpec(ActivationSpec):
    """Approximation of GELU by a sigmoid (CLIP; gpt-oss uses it as a gate).

    Formula:
        f(x) = x · σ(alpha · x)

    Paper:
        https://arxiv.org/abs/1606.08415
    """

    formula: ClassVar[str] = r"f(x) = x\,\sigma(\alpha x)"

    name: Literal["quick-gelu"] = "quick-gelu"
    external_names: ClassVar[tuple[str, ...]] = ("quick_gelu",)
    alpha: float = Field(1.702, description="Factor of the sigmoid's argument.")

    def build(self, context: BuildContext) -> nn.Module:
        from gptkit.components.activation.modules.elementwise import QuickGelu

        return QuickGelu(self.alpha)

    def written(self, context: WritingContext) -> Written:
        text = f'''def $class_name(x: Tensor$parameters) -> Tensor:
    """Approximation of GELU: x · sigmoid({self.alpha:g} x)."""
    return x * torch.sigmoid({self.alpha!r} * x)
'''
        return Written("quick_gelu", text, calls={"apply": "$activation($x)"}, section="feedforward", fields=["alpha"])


class CappedSiluSpec(ActivationSpec):
    """SiLU with a soft bound of its linear factor, but not of the argument of its sigmoid (Inkling 2).

    Formula:
        f(x) = cap · tanh(x / cap) · σ(x)
    """

    formula: ClassVar[str] = r"f(x) = c \tanh(x / c)\,\sigma(x)"

    name: Literal["capped-silu"] = "capped-silu"
    cap: float = Field(4.0, description="Soft bound of the linear factor.", gt=0)

    def build(self, context: BuildContext) -> nn.Module:
        from gptkit.components.activation.modules.elementwise import CappedSilu

        return CappedSilu(self.cap)

    def written(self, context: WritingContext) -> Written:
        text = f'''def $class_name(x: Tensor$parameters) -> Tensor:
    """SiLU whose linear factor is softly bounded by {self.cap:g}."""
    return {self.cap!r} * torch.tanh(x / {self.cap!r}) * torch.sigmoid(x)
'''
        return Written("capped_silu", text, calls={"apply": "$activation($x)"}, section="feedforward", fields=["cap"])


class SiluSpec(ActivationSpec):
    """Sigmoid linear unit, also called Swish: every value times its sigmoid. The gate of SwiGLU.

    Formula:
        f(x) = x · σ(x)

    Paper:
        https://arxiv.org/abs/1710.05941
    """

    formula: ClassVar[str] = r"f(x) = x\,\sigma(x) = \frac{x}{1 + e^{-x}}"

    name: Literal["silu"] = "silu"
    external_names: ClassVar[tuple[str, ...]] = ("silu", "swish")

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.SiLU()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "F.silu($x)"})


class SigmoidSpec(ActivationSpec):
    """Logistic sigmoid, with values from 0 to 1; the gate of the first gated linear units.

    Formula:
        f(x) = 1 / (1 + e^−x)
    """

    formula: ClassVar[str] = r"f(x) = \frac{1}{1 + e^{-x}}"

    name: Literal["sigmoid"] = "sigmoid"
    external_names: ClassVar[tuple[str, ...]] = ("sigmoid",)

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.Sigmoid()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "$x.sigmoid()"})


class TanhSpec(ActivationSpec):
    """Hyperbolic tangent, with values from −1 to 1.

    Formula:
        f(x) = tanh(x)
    """

    formula: ClassVar[str] = r"f(x) = \tanh x = \frac{e^x - e^{-x}}{e^x + e^{-x}}"

    name: Literal["tanh"] = "tanh"
    external_names: ClassVar[tuple[str, ...]] = ("tanh",)

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.Tanh()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "$x.tanh()"})


class SoftplusSpec(ActivationSpec):
    """Smooth approximation of ReLU, always positive.

    Formula:
        f(x) = ln(1 + e^x)
    """

    formula: ClassVar[str] = r"f(x) = \ln(1 + e^x)"

    name: Literal["softplus"] = "softplus"

    def build(self, context: BuildContext) -> nn.Module:
        from torch import nn

        return nn.Softplus()

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"apply": "F.softplus($x)"})
