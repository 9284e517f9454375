"""Template of norm `affine`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, Written, fill

if TYPE_CHECKING:
    from gptkit.components.norm.affine import AffineNormSpec

__all__ = ["affine"]

_CLASS = '''
class $class_name(nn.Module):
    """Weight and bias of $which, without statistics: y = $formula."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones($count))
        #if biased
        self.bias = nn.Parameter(torch.zeros($count))
        #end

    def forward(self, x: Tensor) -> Tensor:
        """Scale vectors, (..., D) to (..., D)."""
        #if biased
        #if before
        return ((x + self.bias) * self.weight).to(x.dtype)
        #else
        return (x * self.weight + self.bias).to(x.dtype)
        #end
        #else
        return (x * self.weight).to(x.dtype)
        #end
'''

_FORMULAS = {"after": "w x + b", "before": "w (x + b)", "none": "w x"}


def affine(spec: AffineNormSpec, dim: Name) -> Written:
    """Return the norm as a class."""
    text = fill(
        _CLASS,
        formula=_FORMULAS[spec.bias],
        biased=spec.bias != "none",
        before=spec.bias == "before",
        which="all features together" if spec.shared else "each feature",
        count="1" if spec.shared else "$DIM",
    )
    settings = {} if spec.shared else {"DIM": Setting(dim)}
    return Written("Affine", text, settings=settings, section="norm", fields=("bias", "shared"))
