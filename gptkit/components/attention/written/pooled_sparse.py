"""Template of `pooled-sparse`: that of `grouped-query`, with an indexer of blocks, whose means every call computes again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gptkit.components.attention.written.grouped_query import headed
from gptkit.components.attention.written.parts import append_to, input_width, position_parts
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.pooled_sparse import PooledSparseSpec

__all__ = ["pooled_sparse"]

_INDEXER = '''
class $class_name(nn.Module):
    """Indexer: for each query, the blocks of keys with the highest Σ relu(q · mean of k)."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.qk = $projection
        self.query_norm = $index_norm
        self.key_norm = $index_norm

    def forward(
        self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor], mask_TS: Tensor
    ) -> Tensor:
        """Return whether each query may attend each key, (B, 1, T, S), for all heads."""
        qk_BTHD = self.qk(x_BTE).unflatten(-1, (-1, $D_INDEX))
        q_BHTD = self.query_norm(qk_BTHD[:, :, :-1]).transpose(1, 2)
        k_B1SD = $append_to(cache, "index_keys", qk_BTHD[:, :, -1:].transpose(1, 2))
        n_full = k_B1SD.shape[2] // $BLOCK_SIZE
        k_B1NMD = torch.unflatten(k_B1SD[:, :, : n_full * $BLOCK_SIZE], 2, (n_full, $BLOCK_SIZE))
        k_B1ND = self.key_norm(k_B1NMD.mean(dim=3))
        #if rotated
        starts_N = $BLOCK_SIZE * torch.arange(n_full, device=x_BTE.device)
        #if rest
        q_BHTR, q_BHTN = q_BHTD.split(($D_HEAD, $D_INDEX - $D_HEAD), dim=-1)  # with position, without
        k_B1NR, k_B1NN = k_B1ND.split(($D_HEAD, $D_INDEX - $D_HEAD), dim=-1)
        q_BHTD = torch.cat(($rotated_query, q_BHTN), dim=-1)
        k_B1ND = torch.cat(($rotated_key, k_B1NN), dim=-1)
        #else
        q_BHTD, k_B1ND = $rotated_query, $rotated_key
        #end
        #end
        scores_BTN = (q_BHTD @ k_B1ND.mT).relu().sum(dim=1) / $D_INDEX**0.5
        whole_TN = torch.unflatten(mask_TS[:, : n_full * $BLOCK_SIZE], 1, (n_full, $BLOCK_SIZE)).all(dim=2)
        scores_BTN = scores_BTN.masked_fill(~whole_TN, torch.finfo(x_BTE.dtype).min)
        order_BTN = scores_BTN.sort(dim=-1, descending=True, stable=True).indices[..., :$TOP_BLOCKS]
        chosen_BTN = torch.zeros_like(scores_BTN, dtype=torch.bool).scatter(-1, order_BTN, True)
        # Keys of blocks that the query sees in part are attended to.
        keys_S = torch.arange(k_B1SD.shape[2], device=x_BTE.device)
        allowed_BTN = F.pad(chosen_BTN | ~whole_TN, (0, 1), value=True)
        return allowed_BTN[..., keys_S // $BLOCK_SIZE][:, None] & mask_TS
'''

_FIELDS = ("block_size", "top_blocks", "index_heads", "d_index", "index_norm", "index_loss")


def pooled_sparse(spec: PooledSparseSpec, context: WritingContext) -> Written:
    """Return the attention as a class, and its indexer. The loss of the indexer, for training only, is not written."""
    attention = headed(spec, context, grouped=True, indexer=_indexer(spec, context))
    return replace(attention, fields=(*attention.fields, *_FIELDS))


def _indexer(spec: PooledSparseSpec, context: WritingContext) -> Written:
    position: Any = context.parts.position
    d_head = spec.head_shape().d_head
    assert spec.d_index is not None
    settings = {
        "INDEX_HEADS": Setting(1, "choices of keys, each for as many heads"),
        "INDEX_QUERIES": Setting(spec.index_heads, "queries of the indexer for a token"),
        "D_INDEX": Setting(spec.d_index, "features of a query and key of the indexer"),
        "BLOCK_SIZE": Setting(spec.block_size, "tokens of a block of keys"),
        "TOP_BLOCKS": Setting(spec.top_blocks, "full blocks of keys that a query attends to"),
    }
    d_input, own = input_width(context)
    settings |= own
    parts = {"append_to": append_to, "index_norm": written(spec.index_norm, context, dim=Name("$D_INDEX"))}
    calls = {"query": "", "key": ""}
    rotated, rest = "rotate" in position.uses, spec.d_index > d_head
    if rotated:
        rotation = written(position, context, heads=HeadShape(spec.index_heads, 1, d_head))
        if not rotation.is_function:
            raise NotWrittenError(
                f"attention {spec.name!r} cannot be written out with position {position.name!r}, which is not a function",
                hint="Choose position rotary or none.",
            )
        parts |= position_parts(rotation)
        names = {"query": "q_BHTR", "key": "k_B1NR"} if rest else {"query": "q_BHTD", "key": "k_B1ND"}
        for purpose, name in names.items():  # a position may change queries only
            calls[purpose] = rotation.call(purpose, x=name) if purpose in rotation.calls else name
        calls["key"] = re.sub(r"\bpositions_T\b", "starts_N", calls["key"])
        if rest:
            settings["D_HEAD"] = Setting(d_head, "features of a head")
    text = fill(
        _INDEXER,
        projection=linear(context, d_input, "($INDEX_QUERIES + 1) * $D_INDEX", bias=False),
        rotated=rotated,
        rest=rest,
        rotated_query=calls["query"],
        rotated_key=calls["key"],
    )
    return Written("PooledIndexer", text, settings=settings, parts=parts, section="attention")
