"""Template of `sparse-latent`: that of `latent`, with an indexer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gptkit.components.attention.written.latent import latent
from gptkit.components.attention.written.parts import append_to, position_parts
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.sparse_latent import SparseLatentSpec

__all__ = ["sparse_latent"]

_INDEXER = '''
class $class_name(nn.Module):
    """Indexer: scores of keys, the sum over heads of weight · relu(q · k) / √(D · heads)."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.query = $query
        self.key = $key
        self.key_norm = nn.LayerNorm($D_INDEX, eps=$index_eps)
        self.weights = nn.Linear(D_MODEL, $INDEX_HEADS, bias=False)

    def forward(self, x_BTE: Tensor, q_BTC: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Return the scores of all keys for each query, (B, 1, T, S)."""
        q_BHTD = self.query(q_BTC).unflatten(-1, ($INDEX_HEADS, -1)).transpose(1, 2)
        k_B1TD = self.key_norm(self.key(x_BTE))[:, None]
        #if rotated
        q_BHTR, q_BHTU = q_BHTD.split(($D_SHARED, $D_INDEX - $D_SHARED), dim=-1)
        k_B1TR, k_B1TU = k_B1TD.split(($D_SHARED, $D_INDEX - $D_SHARED), dim=-1)
        q_BHTD = torch.cat(($rotated_query, q_BHTU), dim=-1)
        k_B1TD = torch.cat(($rotated_key, k_B1TU), dim=-1)
        #end
        k_B1SD = $append_to(cache, "index_keys", k_B1TD)
        scores_BHTS = torch.relu(q_BHTD @ k_B1SD.mT * $D_INDEX**-0.5)
        weights_BTH = self.weights(x_BTE) * $INDEX_HEADS**-0.5
        return torch.sum(scores_BHTS * weights_BTH.mT[..., None], dim=1, keepdim=True)
'''

_FIELDS = ("top_k", "index_heads", "d_index", "index_layout", "index_eps", "index_loss", "indexer")


def sparse_latent(spec: SparseLatentSpec, context: WritingContext) -> Written:
    """Return the attention as a class, and its indexer. The loss of the indexer, for training only, is not written."""
    follows = any(getattr(layer.attention, "indexer", "own") == "previous" for layer in context.layers)
    if spec.indexer == "previous":
        _require_visible(spec, context)
    indexer = None if spec.indexer == "previous" else _indexer(spec, context)
    return latent(spec, context, indexer=indexer, follows=follows, top_k=spec.top_k, fields=_FIELDS)


def _require_visible(spec: SparseLatentSpec, context: WritingContext) -> None:
    """Raise if the last layer with an indexer may choose keys that are outside of the window of this one."""
    earlier = [layer.attention for layer in context.layers if layer.index < context.parts.index]
    owner = next((each for each in reversed(earlier) if getattr(each, "indexer", "") == "own"), None)
    if owner is not None and spec.window is not None and getattr(owner, "window", None) != spec.window:
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out with indexer: previous and another window than the layer "
            "with the indexer has: all chosen keys may be outside of it",
            hint="Set the same window for both layers.",
        )


def _indexer(spec: SparseLatentSpec, context: WritingContext) -> Written:
    position: Any = context.parts.position
    settings = {
        "INDEX_HEADS": Setting(spec.index_heads, "heads of the indexer"),
        "D_INDEX": Setting(spec.d_index, "features of a query and key of the indexer"),
        "D_SHARED": Setting(spec.d_rotary, "features of a query and key with position"),
    }
    source = "D_MODEL"
    if spec.q_rank is not None:
        source = "$Q_RANK"
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
    parts = {"append_to": append_to}
    calls = {"query": "", "key": ""}
    if "rotate" in position.uses:
        if spec.index_layout != "same":
            position = position.replace(layout=spec.index_layout)
        rotation = written(position, context, heads=HeadShape(spec.index_heads, 1, spec.d_rotary))
        if not rotation.is_function:
            raise NotWrittenError(
                f"attention {spec.name!r} cannot be written out with position {position.name!r}, which is not a function",
                hint="Choose position rotary or none.",
            )
        parts |= position_parts(rotation)
        named = {"query": "q_BHTR", "key": "k_B1TR"}
        for purpose, name in named.items():  # a position may change queries only
            calls[purpose] = rotation.call(purpose, x=name) if purpose in rotation.calls else name
    text = fill(
        _INDEXER,
        query=linear(context, source, "$INDEX_HEADS * $D_INDEX", bias=False),
        key=linear(context, "D_MODEL", "$D_INDEX", bias=False),
        rotated="rotate" in position.uses,
        rotated_query=calls["query"],
        rotated_key=calls["key"],
        index_eps=spec.index_eps,
    )
    return Written("Indexer", text, settings=settings, parts=parts, section="attention")
