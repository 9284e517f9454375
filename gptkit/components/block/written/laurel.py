"""Template of block `laurel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import with_arguments
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.block.laurel import LaurelSpec

__all__ = ["laurel"]

_BLOCK = '''
class $class_name(nn.Module):
    """One layer: attention beside a low-rank map of its input (LAuReL), then feed-forward."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.left = $left
        self.right = $right
        self.laurel_norm = $laurel_norm
        self.attention = $attention
        self.attention_output_norm = $attention_output_norm
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward
        self.feedforward_output_norm = $feedforward_output_norm

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        a_BTE = self.attention_norm(x_BTE)
        laurel_BTE = a_BTE + self.laurel_norm(self.right(self.left(a_BTE)))
        mixed_BTE = self.attention_output_norm(self.attention(a_BTE, positions_T, cache))
        #if dropout
        mixed_BTE = F.dropout(mixed_BTE, $BLOCK_DROPOUT, self.training)
        #end
        x_BTE = (x_BTE + mixed_BTE + laurel_BTE) * 0.5**0.5  # keeps the variance
        fed_BTE = self.feedforward(self.feedforward_norm(x_BTE))
        fed_BTE = self.feedforward_output_norm(fed_BTE)
        #if dropout
        fed_BTE = F.dropout(fed_BTE, $BLOCK_DROPOUT, self.training)
        #end
        return x_BTE + fed_BTE
'''


def laurel(spec: LaurelSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    settings = {"LAUREL_RANK": Setting(spec.rank, "rank of the map beside attention")}
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")
    norms = ("attention_norm", "laurel_norm", "attention_output_norm", "feedforward_norm", "feedforward_output_norm")
    parts = {name: written(context.parts.norm, context, dim=Name("D_MODEL")) for name in norms}
    parts["attention"] = written(context.parts.attention, context)
    parts["feedforward"] = written(context.parts.feedforward, context)
    text = fill(
        _BLOCK,
        left=linear(context, "D_MODEL", "$LAUREL_RANK", bias=False),
        right=linear(context, "$LAUREL_RANK", "D_MODEL", bias=False),
        dropout=bool(spec.dropout),
    )
    text = with_arguments(text, parts["feedforward"])
    fields = ("rank", "dropout")
    return Written("Block", text, settings=settings, parts=parts, section="block", variant="Laurel", fields=fields)
