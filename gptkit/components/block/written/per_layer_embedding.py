"""Template of block `per-layer-embedding`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import scale_of_output
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.block.per_layer_embedding import LayerEmbeddingFields, PerLayerEmbeddingSpec

__all__ = ["FIELDS", "layer_embedding", "layer_inputs", "per_layer_embedding"]

_INPUTS = '''
class $class_name(nn.Module):
    """Embedding of the tokens for each layer, from one table."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.table = nn.Embedding($N_ROWS, N_LAYERS * $D_LAYER)
        #if projection
        self.projection = $projection
        #if norm
        self.norm = $norm
        #end
        #end

    def forward(self, ids_BT: Tensor, x_BTE: Tensor) -> Tensor:
        """Return the embeddings for all layers, (B, T) to (B, T, L, P)."""
        #if rows
        ids_BT = torch.where(ids_BT < $N_ROWS, ids_BT, 0)  # later ids have no row
        #end
        inputs_BTLP: Tensor = $D_LAYER**0.5 * self.table(ids_BT).unflatten(-1, (N_LAYERS, -1))
        #if projection
        projected_BTLP = (self.projection(x_BTE) * D_MODEL**-0.5).unflatten(-1, (N_LAYERS, -1))
        #if norm
        inputs_BTLP = (inputs_BTLP + self.norm(projected_BTLP)) * 0.5**0.5  # keeps the variance
        #else
        inputs_BTLP = (inputs_BTLP + projected_BTLP) * 0.5**0.5  # keeps the variance
        #end
        #end
        return inputs_BTLP
'''

_EMBEDDING = '''
class $class_name(nn.Module):
    """Gated embedding of the tokens for one layer."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.gate = $gate
        #if activation
        self.activation = $activation
        #end
        self.output = $projection
        #if norm
        self.norm = $norm
        #end

    def forward(self, x_BTE: Tensor, input_BTP: Tensor) -> Tensor:
        """Return what is added to the tokens, (B, T, E) to (B, T, E)."""
        gate_BTP = self.gate(x_BTE)
        #if norm
        return self.norm(self.output($activated * input_BTP))
        #else
        return self.output($activated * input_BTP)
        #end
'''

_BLOCK = '''
class $class_name(nn.Module):
    """One layer, then a gated embedding of the token for this layer."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.block = $block
        self.embedding = $embedding
        #if output_scale
        self.output_scale = $output_scale
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        x_BTE = self.block(x_BTE, positions_T, cache)
        added_BTE = self.embedding(x_BTE, cache["layer_input"])
        #if output_scale
        return (x_BTE + added_BTE) * self.output_scale
        #else
        return x_BTE + added_BTE
        #end
'''

FIELDS = ("d_embedding", "n_ids", "projection", "activation", "norm")


def per_layer_embedding(spec: PerLayerEmbeddingSpec, context: WritingContext) -> Written:
    """Return the block as a class, and the module that all layers share."""
    block = written(spec.block, context)
    if "streams" in block.calls:
        raise NotWrittenError(
            f"block {spec.name!r} cannot be written out around {spec.block.name!r}, which returns one of several streams",
            hint="Give altup the field d_embedding.",
        )
    scale = "" if spec.output_scale is None else scale_of_output(spec.output_scale)
    return Written(
        "PerLayerBlock",
        fill(_BLOCK, output_scale=scale),
        parts={"block": block, "embedding": layer_embedding(spec, context)},
        shared=layer_inputs(spec, context),
        section="block",
        fields=(*FIELDS, "output_scale", "block"),
    )


def layer_embedding(spec: LayerEmbeddingFields, context: WritingContext) -> Written:
    """Return the gated embedding of one layer as a class."""
    activation = written(spec.activation, context)
    parts = {"activation": activation} if activation.text or activation.expression else {}
    if spec.norm is not None:
        parts["norm"] = written(spec.norm, context, dim=Name("D_MODEL"))
    text = fill(
        _EMBEDDING,
        gate=linear(context, "D_MODEL", "$D_LAYER", bias=False),
        activation="activation" in parts and not activation.is_function,
        activated=activation.call("apply", x="gate_BTP"),
        projection=linear(context, "$D_LAYER", "D_MODEL", bias=False),
        norm=spec.norm is not None,
    )
    settings = {"D_LAYER": Setting(spec.d_embedding, "features of a token for each layer")}
    return Written("LayerEmbedding", text, settings=settings, parts=parts, section="block")


def layer_inputs(spec: LayerEmbeddingFields, context: WritingContext) -> dict[str, Written]:
    """Return the module that all layers share, by its name in the model.

    Raises:
        NotWrittenError: it projects another input than that of the first layer, the one that a written model passes.
    """
    first = context.blocks[0] if context.blocks else None
    if spec.projection and getattr(first, "embedded", None) != spec.embedded:
        raise NotWrittenError(
            f"block {spec.name!r} of layer {context.parts.index} projects its own input, and a written model projects the "
            "input of layer 0",
            hint="Give layer 0 the same block, outside of others, or set projection: false.",
        )
    fewer = spec.n_ids is not None and spec.n_ids < context.vocab_size
    rows = Setting(spec.n_ids, "token ids with a row in the table for layers") if fewer else Setting(Name("VOCAB_SIZE"))
    norm = spec.norm if spec.projection else None
    text = fill(
        _INPUTS,
        projection=linear(context, "D_MODEL", "N_LAYERS * $D_LAYER", bias=False) if spec.projection else "",
        norm=norm is not None,
        rows=fewer,
    )
    settings = {"N_ROWS": rows, "D_LAYER": Setting(spec.d_embedding, "features of a token for each layer")}
    parts = {} if norm is None else {"norm": written(norm, context, dim=Name("$D_LAYER"))}
    return {"per-layer-embedding": Written("LayerInputs", text, settings=settings, parts=parts, section="embedding")}
