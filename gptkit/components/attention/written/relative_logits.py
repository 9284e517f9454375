"""Template of the relative terms of scores (`relative_width`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import input_width
from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear
from gptkit.kinds.written_each_head import each_head

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["relative_logits"]

_CLASS = '''
class $class_name(nn.Module):
    """Term of the scores by the token of the query and the distance of the key: r · table[:, distance]."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.features = $features
        self.table = nn.Parameter(torch.zeros($RELATIVE_WIDTH, $RELATIVE_EXTENT))
        #if norm
        self.norm = $norm
        #end

    def forward(self, q_BHTR: Tensor, positions_T: Tensor, n_keys: int) -> Tensor:
        """Return the terms for relative features of queries, (B, H, T, R) to (B, H, T, S)."""
        keys_S = torch.arange(n_keys, device=positions_T.device)
        distance_TS = (positions_T[:, None] - keys_S).clamp(0, $RELATIVE_EXTENT)
        by_distance_BHTL = F.pad(q_BHTR @ self.table, (0, 1))  # 0 for longer distances
        return by_distance_BHTL.gather(-1, distance_TS.expand(*by_distance_BHTL.shape[:3], -1))
'''


def relative_logits(spec: HeadedSpec, context: WritingContext) -> Written:
    """Return the terms as a class."""
    d_input, own = input_width(context)
    settings = {
        "N_HEADS": Setting(spec.head_shape().n_heads, "heads of the queries"),
        "RELATIVE_WIDTH": Setting(spec.relative_width, "relative features of a head"),
        "RELATIVE_EXTENT": Setting(spec.relative_extent, "distances with a relative term"),
        **own,
    }
    features = linear(context, d_input, "$N_HEADS * $RELATIVE_WIDTH", bias=False)
    norm, parts = spec.relative_norm, {}
    if norm is not None:
        parts["norm"] = each_head(norm, context, "$N_HEADS", "$RELATIVE_WIDTH")
    text = fill(_CLASS, features=features, norm=norm is not None)
    return Written("RelativeLogits", text, settings=settings, parts=parts, section="attention")
