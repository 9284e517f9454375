"""The class by which templates of any kind write `gptkit.nn.each_head.EachHead`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.kinds.norm import NormSpec

__all__ = ["each_head"]

_EACH_HEAD = '''
class $class_name(nn.Module):
    """A norm with weights of its own for each head: those of one norm, stacked."""

    def __init__(self$parameters) -> None:
        super().__init__()
        norm = $norm
        self.norm_of_a_head = (norm,)  # in a tuple, so that its own weights are not parameters
        for name, weight in norm.named_parameters():
            stacked = torch.stack([weight.detach()] * $NORM_HEADS)
            self.register_parameter(name, nn.Parameter(stacked))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each head, (..., H, D) to (..., H, D)."""
        weights = dict(self.named_parameters())
        heads = [
            functional_call(self.norm_of_a_head[0], {n: w[h] for n, w in weights.items()}, x_head)
            for h, x_head in enumerate(x.unbind(dim=-2))
        ]
        return torch.stack(heads, dim=-2)
'''


def each_head(spec: NormSpec, context: WritingContext, heads: str, dim: str = "$D_HEAD") -> Written:
    """Return a norm with weights of its own for each head; one without weights is the same for all.

    Args:
        spec: the norm of one head.
        context: the writing context.
        heads: the number of heads, an expression.
        dim: the number of features of a head, an expression.
    """
    if not any(True for _ in spec.build(context, dim=1).parameters()):
        return written(spec, context, dim=Name(dim))
    settings = {"NORM_HEADS": Setting(Name(heads)), "NORM_DIM": Setting(Name(dim))}
    parts = {"norm": written(spec, context, dim=Name("$NORM_DIM"))}
    return Written("EachHead", fill(_EACH_HEAD), settings=settings, parts=parts, section="norm")
