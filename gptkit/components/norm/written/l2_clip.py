"""Template of norm `l2-clip`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, Written, fill

if TYPE_CHECKING:
    from gptkit.components.norm.l2_clip import L2ClipSpec

__all__ = ["l2_clip"]

_CLASS = '''
class $class_name(nn.Module):
    """Bound on the length of vectors: y = u · min(1, bound / (|u| + ε)), with u = $formula."""

    #if scale
    def __init__(self$parameters) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones($DIM))

    #end
    def forward(self, x: Tensor) -> Tensor:
        """Shorten longer vectors, (..., D) to (..., D), in fp32."""
        #if scale
        u = x.float() * self.weight.float()
        #else
        u = x.float()
        #end
        length: Tensor = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        return (u * ($LENGTH_BOUND / (length + $LENGTH_EPS)).clamp(max=1)).to(x.dtype)
'''


def l2_clip(spec: L2ClipSpec, dim: Name) -> Written:
    """Return the bound as a class."""
    scale = spec.scale
    text = fill(_CLASS, scale=scale, formula="w x" if scale else "x")
    settings = {
        "LENGTH_BOUND": Setting(spec.bound, "largest length of a vector"),
        "LENGTH_EPS": Setting(spec.eps, "added to the length"),
        **({"DIM": Setting(dim)} if scale else {}),
    }
    variant = "scaled" if scale else "plain"
    return Written("L2Clip", text, settings=settings, section="norm", variant=variant, fields=("bound", "scale", "eps"))
