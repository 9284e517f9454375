"""Template of block `attention-residuals`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill
from gptkit_research.written.parts import branch_parts, dropped

if TYPE_CHECKING:
    from gptkit_research.attention_residuals import AttentionResidualsSpec

__all__ = ["attention_residuals"]

_ATTEND = '''
def $class_name(sources: list[Tensor], query_E: Tensor$parameters) -> Tensor:
    """Return the mean of the sources, each (B, T, E), weighted by a softmax of their scores."""
    values_BTSE = torch.stack(sources, dim=-2)
    scale_BTS = torch.rsqrt(values_BTSE.square().mean(dim=-1) + $SOURCE_EPS)
    weights_BTS = ((values_BTSE @ query_E) * scale_BTS).softmax(dim=-1)
    return (weights_BTS[..., None, :] @ values_BTSE)[..., 0, :]
'''

_BLOCK = '''
class $class_name(nn.Module):
    """One layer without a residual stream: its branches read weighted means of all earlier outputs."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.attention = $attention
        self.feedforward_query = nn.Parameter(torch.zeros(D_MODEL))
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward
        self.output_query = nn.Parameter(torch.zeros(D_MODEL))
        #if grouped
        self.begins_group = $BEGINS_GROUP
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        # The output of a layer has the earlier outputs, its sources, as an attribute.
        sources: list[Tensor] = getattr(x_BTE, "$kept_as", [x_BTE])
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        #if grouped
        if len(sources) > 1 and not self.begins_group:
            sources = [*sources[:-1], sources[-1] + $mixed]
        else:
            sources = [*sources, $mixed]
        #else
        sources = [*sources, $mixed]
        #end
        h_BTE = $attend(sources, self.feedforward_query$attend_arguments)
        fed_BTE = self.feedforward(self.feedforward_norm(h_BTE))
        #if grouped
        sources = [*sources[:-1], sources[-1] + $fed]
        #else
        sources = [*sources, $fed]
        #end
        y_BTE = $attend(sources, self.output_query$attend_arguments)
        setattr(y_BTE, "$kept_as", sources)
        return y_BTE
'''


def attention_residuals(spec: AttentionResidualsSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    settings, mixed, fed = dropped(spec.dropout)
    grouped = spec.group is not None
    if spec.group is not None:
        begins = context.parts.index % spec.group == 0
        settings["BEGINS_GROUP"] = Setting(begins, "whether the layer is the first of its group of layers")
    attend = Written(
        "attend_to_sources",
        fill(_ATTEND),
        settings={"SOURCE_EPS": Setting(spec.eps, "added to the mean square of a source")},
        section="block",
    )
    kept_as = f"sources_of_{spec.group}" if grouped else "sources"  # layers with another `group` do not continue these
    text = fill(_BLOCK, grouped=grouped, mixed=mixed, fed=fed, kept_as=kept_as)
    parts = {**branch_parts(context), "attend": attend}
    return Written("Block", text, settings=settings, parts=parts, section="block", fields=("group", "eps", "dropout"))
