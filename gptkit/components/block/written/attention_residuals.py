"""Template of block `attention-residuals`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import with_arguments
from gptkit.core import walk
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written
from gptkit.kinds.written_convolution import short_convolution

if TYPE_CHECKING:
    from gptkit.components.block.attention_residuals import AttentionResidualsSpec

__all__ = ["attention_residuals"]

_ATTEND = '''
def $class_name(sources: list[Tensor], query_E: Tensor$parameters) -> Tensor:
    """Return the mean of the$normalized sources, each (B, T, E), weighted by a softmax of their scores."""
    values_BTSE = torch.stack(sources, dim=-2)
    #if normalize
    values_BTSE = F.rms_norm(values_BTSE, values_BTSE.shape[-1:], eps=$SOURCE_EPS)
    weights_BTS = $scores.softmax(dim=-1)
    #else
    scale_BTS = torch.rsqrt(values_BTSE.square().mean(dim=-1) + $SOURCE_EPS)
    weights_BTS = ($scores * scale_BTS).softmax(dim=-1)
    #end
    return (weights_BTS[..., None, :] @ values_BTSE)[..., 0, :]
'''

_BLOCK = '''
class $class_name(nn.Module):
    """One layer without a residual stream: its branches read weighted means of earlier outputs."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        #if $KV_INPUTS
        self.key_norm = $key_norm
        self.value_norm = $value_norm
        #end
        self.attention = $attention
        #if not $IS_FIRST
        #if $KV_INPUTS
        self.attention_query = nn.Parameter(torch.zeros(3, D_MODEL))
        #else
        self.attention_query = nn.Parameter(torch.zeros(D_MODEL))
        #end
        #end
        self.feedforward_query = nn.Parameter(torch.zeros(D_MODEL))
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward
        #if $IS_LAST
        self.output_query = nn.Parameter(torch.zeros(D_MODEL))
        #end
        #if output_conv
        self.attention_conv = nn.Conv1d(D_MODEL, D_MODEL, $OUTPUT_CONV, groups=D_MODEL, bias=False)
        self.feedforward_conv = nn.Conv1d(D_MODEL, D_MODEL, $OUTPUT_CONV, groups=D_MODEL, bias=False)
        #end
        #if grouped
        self.begins_group = $BEGINS_GROUP
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        # The output of a layer has the earlier outputs, its sources, as an attribute.
        sources: list[Tensor] = getattr(x_BTE, "$kept_as", [x_BTE])
        #if $KV_INPUTS
        #if $IS_FIRST
        h_BTE = key_BTE = value_BTE = x_BTE
        #else
        h_BTE, key_BTE, value_BTE = ($attend(sources, query_E$attend_arguments) for query_E in self.attention_query)
        #end
        key_BTE, value_BTE = self.key_norm(key_BTE), self.value_norm(value_BTE)
        mixed_BTE = self.attention(self.attention_norm(h_BTE), positions_T, cache, key_BTE, value_BTE)
        #else
        #if $IS_FIRST
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        #else
        h_BTE = $attend(sources, self.attention_query$attend_arguments)
        mixed_BTE = self.attention(self.attention_norm(h_BTE), positions_T, cache)
        #end
        #end
        #if output_conv
        start_BTE = cache.get("mixed", mixed_BTE.new_zeros(len(x_BTE), $OUTPUT_CONV - 1, D_MODEL))
        mixed_BTE, cache["mixed"] = $short_convolution(mixed_BTE, self.attention_conv, start_BTE)
        #if conv_scaled
        mixed_BTE = mixed_BTE / ($OUTPUT_CONV + 1) ** 0.5
        #end
        #end
        #if dropout
        mixed_BTE = F.dropout(mixed_BTE, $BLOCK_DROPOUT, self.training)
        #end
        #if grouped
        if len(sources) > 1 and not self.begins_group:
            sources = [*sources[:-1], sources[-1] + mixed_BTE]
        else:
            sources = [*sources, mixed_BTE]
        #else
        sources = [*sources, mixed_BTE]
        #end
        h_BTE = $attend(sources, self.feedforward_query$attend_arguments)
        fed_BTE = self.feedforward(self.feedforward_norm(h_BTE))
        #if output_conv
        start_BTE = cache.get("fed", fed_BTE.new_zeros(len(x_BTE), $OUTPUT_CONV - 1, D_MODEL))
        fed_BTE, cache["fed"] = $short_convolution(fed_BTE, self.feedforward_conv, start_BTE)
        #if conv_scaled
        fed_BTE = fed_BTE / ($OUTPUT_CONV + 1) ** 0.5
        #end
        #end
        #if dropout
        fed_BTE = F.dropout(fed_BTE, $BLOCK_DROPOUT, self.training)
        #end
        #if grouped
        sources = [*sources[:-1], sources[-1] + fed_BTE]
        #else
        sources = [*sources, fed_BTE]
        #end
        #if $IS_LAST
        y_BTE = $attend(sources, self.output_query$attend_arguments)
        #else
        y_BTE = x_BTE + mixed_BTE + fed_BTE  # the sum of the sources
        #end
        y_BTE.__dict__["$kept_as"] = sources
        return y_BTE
'''

_FIELDS = (
    "group",
    "score_scale",
    "normalize_sources",
    "kv_inputs",
    "eps",
    "output_conv",
    "output_conv_scaled",
    "dropout",
)


def attention_residuals(spec: AttentionResidualsSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    settings: dict[str, Setting] = {}
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")
    index = context.parts.index
    settings["IS_FIRST"] = Setting(index == _first(spec, context), "whether the layer's input is the only source")
    settings["IS_LAST"] = Setting(index >= context.n_layers - 1, "whether the layer returns a mean of the sources")
    grouped = spec.group is not None
    if spec.group is not None:
        begins = index % spec.group == 0
        settings["BEGINS_GROUP"] = Setting(begins, "whether the layer is the first of its group of layers")
    settings["KV_INPUTS"] = Setting(spec.kv_inputs, "whether keys and values have inputs of their own")
    norms = ("attention_norm", "feedforward_norm", "key_norm", "value_norm")
    parts = {name: written(context.parts.norm, context, dim=Name("D_MODEL")) for name in norms}
    parts |= {
        "attention": written(context.parts.attention, context.replace(kv_inputs=True) if spec.kv_inputs else context),
        "feedforward": written(context.parts.feedforward, context),
        "attend": _attend(spec),
    }
    if spec.output_conv is not None:
        settings["OUTPUT_CONV"] = Setting(spec.output_conv, "tokens of the convolutions of the branches' outputs")
        parts["short_convolution"] = short_convolution
    text = fill(
        _BLOCK,
        grouped=grouped,
        output_conv=spec.output_conv is not None,
        conv_scaled=spec.output_conv_scaled,
        dropout=bool(spec.dropout),
        kept_as=f"sources_of_{spec.group}" if grouped else "sources",  # layers with another `group` do not continue these
    )
    text = with_arguments(text, parts["feedforward"])
    return Written("Block", text, settings=settings, parts=parts, section="block", fields=_FIELDS)


def _first(spec: AttentionResidualsSpec, context: WritingContext) -> int:
    """Return the index of the first layer with such a block, also within another one."""
    for index, block in enumerate(context.blocks):
        inner = [part for _, part in walk.components(block)]
        if any(type(part) is type(spec) and getattr(part, "group", None) == spec.group for part in (block, *inner)):
            return index
    return context.parts.index


def _attend(spec: AttentionResidualsSpec) -> Written:
    settings = {"SOURCE_EPS": Setting(spec.eps, "added to the mean square of a source")}
    scores = "(values_BTSE @ query_E)"
    if spec.score_scale != 1:
        settings["SOURCE_SCALE"] = Setting(spec.score_scale, "factor of the scores of sources")
        scores = f"({scores} * $SOURCE_SCALE)" if spec.normalize_sources else f"{scores} * $SOURCE_SCALE"
    text = fill(
        _ATTEND, normalize=spec.normalize_sources, normalized=" normalized" if spec.normalize_sources else "", scores=scores
    )
    return Written("attend_to_sources", text, settings=settings, section="block")
