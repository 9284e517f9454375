"""Template of norm `gated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.norm.gated import GatedNormSpec

__all__ = ["gated"]

_CLASS = '''
class $class_name(nn.Module):
    """Norm whose output is gated: n = norm(x), y = n · σ(U silu(D n))."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.norm = $norm
        self.down = nn.Linear($DIM, $GATE_RANK, bias=False)
        self.up = nn.Linear($GATE_RANK, $DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize vectors, (..., D) to (..., D); the gates are computed in fp32."""
        y = self.norm(x)
        gates = torch.sigmoid(self.up(F.silu(self.down(y))).float())
        return (y * gates).to(y.dtype)
'''


def gated(spec: GatedNormSpec, context: WritingContext, dim: Name) -> Written:
    """Return the norm as a class, which has the norm that is applied first as a part."""
    settings = {"DIM": Setting(dim), "GATE_RANK": Setting(spec.rank, "features between the matrices of a norm's gates")}
    parts = {"norm": written(spec.norm, context, dim=Name("$DIM"))}
    return Written("GatedNorm", fill(_CLASS), settings=settings, parts=parts, section="norm", fields=("norm", "rank"))
