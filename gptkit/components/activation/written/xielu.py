"""Template of activation `xielu`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, Written, fill

if TYPE_CHECKING:
    from gptkit.components.activation.xielu import XieluSpec

__all__ = ["xielu"]

_CLASS = '''
class $class_name(nn.Module):
    """Activation with two learned slopes: quadratic above zero, exponential below.

    f(x) = α_p x² + β x above zero, α_n (exp(min(x, ε)) - 1 - x) + β x below.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        # softplus(positive) is α_p, and β + softplus(negative) is α_n.
        self.positive = nn.Parameter(torch.tensor([$XIELU_POSITIVE]).expm1().log())
        self.negative = nn.Parameter(torch.tensor([$XIELU_NEGATIVE - $XIELU_BETA]).expm1().log())
        self.beta = nn.Parameter(torch.tensor($XIELU_BETA), requires_grad=False)
        self.eps = nn.Parameter(torch.tensor($XIELU_EPS), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to each number."""
        above = F.softplus(self.positive) * x.square()
        below = torch.expm1(torch.minimum(x, self.eps)) - x
        below = (self.beta + F.softplus(self.negative)) * below
        return torch.where(x > 0, above, below) + self.beta * x
'''


def xielu(spec: XieluSpec) -> Written:
    """Return the activation as a class."""
    return Written(
        "XIELU",
        fill(_CLASS),
        settings={
            "XIELU_POSITIVE": Setting(spec.positive, "α_p of a new model"),
            "XIELU_NEGATIVE": Setting(spec.negative, "α_n of a new model"),
            "XIELU_BETA": Setting(spec.beta, "β, the slope at zero"),
            "XIELU_EPS": Setting(spec.eps, "ε, the largest exponent"),
        },
        calls={"apply": "self.activation($x)"},
        section="feedforward",
        fields=["positive", "negative", "beta", "eps"],
    )
