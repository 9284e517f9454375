"""Template of linear projection `low-rank`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import NotWrittenError, Written, fill

if TYPE_CHECKING:
    from gptkit.components.linear.low_rank import LowRankSpec

__all__ = ["low_rank"]

_CLASS = '''
class LowRankLinear(nn.Linear):
    """Linear layer with a low-rank adapter (LoRA): y = W x + b + alpha / rank · B A x."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(d_in, d_out, bias)
        self.lora_a = nn.Parameter(torch.randn(rank, d_in) * d_in**-0.5)
        self.lora_b = nn.Parameter(torch.zeros(d_out, rank))
        self.factor = alpha / rank
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Project vectors, (..., inputs) to (..., outputs)."""
        narrow = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)
        return super().forward(x) + self.factor * F.linear(narrow, self.lora_b)
'''


def low_rank(spec: LowRankSpec) -> Written:
    """Return the projection as a class, whose settings are arguments, since layers may differ in them."""
    if spec.projections != ("*",):
        raise NotWrittenError(
            "linear 'low-rank' cannot be written out with adapters of some projections only",
            hint="Export the run, which merges the adapters, and import the result; or set projections: ['*'].",
        )
    options = f"rank={spec.rank}, alpha={spec.alpha!r}" + (f", dropout={spec.dropout!r}" if spec.dropout else "")
    return Written(
        "LowRankLinear",
        fill(_CLASS),
        calls={"construct": f"LowRankLinear($d_in, $d_out, {options}$bias)"},
        section="linear",
        fields=["rank", "alpha", "dropout", "projections"],
    )
