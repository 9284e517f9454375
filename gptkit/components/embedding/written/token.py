"""Template of embedding `token`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.embedding.token import TokenEmbeddingSpec

__all__ = ["token"]

_CLASS = '''
class $class_name(nn.Module):
    """$description"""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCAB_SIZE, $D_EMBEDDING)
        #if project
        self.project = $projection
        #end
        #if norm
        self.norm = $norm
        #end
        #if position
        self.position = $position
        #end

    #if positions
    def forward(self, ids_BT: Tensor, positions_T: Tensor) -> Tensor:
        """Return the vectors of tokens at these positions, (B, T) to (B, T, E)."""
    #else
    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return the vectors of tokens, (B, T) to (B, T, E)."""
    #end
        #if plain
        return self.table(ids_BT)
        #else
        x_BTE = self.table(ids_BT)
        #if project
        x_BTE = self.project(x_BTE)
        #end
        #if root
        x_BTE = $EMBEDDING_SCALE * x_BTE  # as in the first Transformer
        #elif scale
        x_BTE = $EMBEDDING_SCALE * x_BTE
        #end
        #if norm
        x_BTE = self.norm(x_BTE)
        #end
        #if embedded
        x_BTE = $embedded
        #elif positions
        x_BTE = x_BTE + $added
        #end
        #if dropout
        x_BTE = F.dropout(x_BTE, $EMBEDDING_DROPOUT, self.training)
        #end
        return x_BTE
        #end
'''


def token(spec: TokenEmbeddingSpec, context: WritingContext) -> Written:
    """Return the embedding as a class, with the model's absolute position."""
    parts: dict[str, Written] = {}
    if spec.norm is not None:
        parts["norm"] = written(spec.norm, context, dim=Name("D_MODEL"))
    added = embedded = ""
    if context.position is not None and "embed" in context.position.uses:
        position = written(context.position, context, heads=None)
        if "embedded" in position.calls:
            added = embedded = position.call("embedded", x="x_BTE")
        else:
            added = position.call("embed")
        parts["position" if not position.is_function else position.name] = position
    narrow = spec.d_embedding is not None and spec.d_embedding != context.d_model
    settings = {"D_EMBEDDING": Setting(spec.d_embedding, "width of the table") if narrow else Setting(Name("D_MODEL"))}
    if spec.scale is not None:
        value = Name("D_MODEL**0.5") if spec.scale == "sqrt" else spec.scale
        settings["EMBEDDING_SCALE"] = Setting(value, "factor of the token vectors")
    if spec.dropout:
        settings["EMBEDDING_DROPOUT"] = Setting(spec.dropout, "share of the embedding dropped in training")
    alone = not (narrow or added or spec.dropout or spec.norm is not None or spec.scale is not None)
    text = fill(
        _CLASS,
        description="Embedding: a trained vector for each token" + (", plus one for its position." if added else "."),
        projection=linear(context, "$D_EMBEDDING", "D_MODEL", bias=False) if narrow else "",
        project=narrow,
        plain=alone,
        scale=spec.scale is not None,
        root=spec.scale == "sqrt",
        positions=bool(added),
        added=added,
        embedded=embedded,
        dropout=bool(spec.dropout),
        norm="norm" in parts,
        position="position" in parts,
    )
    call = "self.embedding(ids_BT, positions_T)" if added else "self.embedding(ids_BT)"
    calls = {"embed": call, **({"table alone": ""} if alone else {})}
    fields = ("dropout", "scale", "norm", "d_embedding")
    return Written("Embedding", text, settings=settings, parts=parts, calls=calls, section="embedding", fields=fields)
