"""Template of norm `layer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, Written, fill, number

if TYPE_CHECKING:
    from gptkit.components.norm.layer import LayerNormSpec

__all__ = ["written"]

_CLASS = '''
class $class_name(nn.Module):
    """Layer normalization: y = (x - mean(x)) / √(var(x) + ε)$formula."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if scale
        self.weight = nn.Parameter(torch.$initial($DIM))
        #end
        #if shift
        self.bias = nn.Parameter(torch.zeros($DIM))
        #end

    def forward(self, x: Tensor) -> Tensor:
        """Normalize vectors, (..., D) to (..., D)."""
        return F.layer_norm(x, ($DIM,), $weight, $bias, $NORM_EPS)
'''


def written(spec: LayerNormSpec, dim: Name) -> Written:
    """Return the norm as torch's module, or as a class where that has no such form."""
    settings = {"DIM": Setting(dim), "NORM_EPS": Setting(spec.eps, "added to the variance")}
    fields = ("eps", "scale", "shift", "offset")
    if spec.offset or (spec.shift and not spec.scale):
        offset = number(spec.offset)
        text = fill(
            _CLASS,
            scale=spec.scale,
            shift=spec.shift,
            initial="zeros" if spec.offset == 1 else "ones",
            weight=f"{offset} + self.weight" if spec.scale else "None",
            bias="self.bias" if spec.shift else "None",
            formula=(f" · ({offset} + weight)" if spec.scale else "") + (" + bias" if spec.shift else ""),
        )
        return Written("LayerNorm", text, settings=settings, section="norm", fields=fields)
    form = "" if spec.shift else ", bias=False" if spec.scale else ", elementwise_affine=False"
    expression = f"nn.LayerNorm($DIM, eps=$NORM_EPS{form})"
    return Written("LayerNorm", expression=expression, settings=settings, section="norm", fields=fields)
