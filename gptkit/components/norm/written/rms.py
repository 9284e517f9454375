"""Template of norm `rms`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, Written, fill

if TYPE_CHECKING:
    from gptkit.components.norm.rms import RMSNormSpec

__all__ = ["written"]

_CLASS = '''
class $class_name(nn.Module):
    """Root-mean-square normalization: y = x / √(mean(x²) + ε) · $weight."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if offset
        self.weight = nn.Parameter(torch.zeros($DIM))
        #else
        self.weight = nn.Parameter(torch.ones($DIM))
        #end

    def forward(self, x: Tensor) -> Tensor:
        """Normalize vectors, (..., D) to (..., D); the mean is computed in fp32."""
        scale = torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + $NORM_EPS)
        #if cast_first
        return (x.float() * scale).to(x.dtype) * $factor
        #else
        return (x.float() * scale * $factor_fp32).to(x.dtype)
        #end
'''


def written(spec: RMSNormSpec, dim: Name) -> Written:
    """Return the norm as a class; without a weight as torch's module."""
    settings = {"DIM": Setting(dim), "NORM_EPS": Setting(spec.eps, "added to the mean square")}
    fields = ("eps", "scale", "offset", "cast")
    if not spec.scale:
        expression = "nn.RMSNorm($DIM, eps=$NORM_EPS, elementwise_affine=False)"
        return Written("RMSNorm", expression=expression, settings=settings, section="norm", fields=fields)
    text = fill(
        _CLASS,
        offset=bool(spec.offset),
        weight="(1 + weight)" if spec.offset else "weight",
        factor_fp32="(1 + self.weight.float())" if spec.offset else "self.weight.float()",
        factor="(1 + self.weight)" if spec.offset else "self.weight",
        cast_first=spec.cast == "before",
    )
    variant = "shifted" if spec.offset else "plain"
    return Written("RMSNorm", text, settings=settings, section="norm", variant=variant, fields=fields)
