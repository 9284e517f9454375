"""Template of `multi-head` and `grouped-query`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.each_head import each_head
from gptkit.components.attention.written.parts import (
    append_to,
    attend,
    causal_mask,
    head_gate,
    position_parts,
    relative_position,
)
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["headed"]

_START = '''
class $class_name(nn.Module):
    """$description

    $formula
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        #if value_gate
        self.sizes = [$N_HEADS * $D_HEAD, $N_HEADS * $D_VALUE]
        #elif own_values
        self.sizes = [$N_HEADS * $D_HEAD, $key_heads * $D_HEAD, $key_heads * $D_VALUE]
        #if gate
        self.sizes.append($N_HEADS * $D_VALUE)
        #end
        #end
        self.$packed_name = $packed
        self.output = $projection
        #if head_gate
        self.head_gate = $head_gate
        #end
        #if norms
        self.q_norm = $q_norm
        #if not reused
        self.k_norm = $k_norm
        #end
        #end
        #if v_norm
        self.v_norm = $v_norm
        #end
        #if position
        self.position = $position
        #end
        #if sinks
        self.sinks = nn.Parameter(torch.zeros($N_HEADS))  # a logit that takes a share of attention
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if value_gate
        q_BTX, gate_BTX = self.query(x_BTE).split(self.sizes, dim=-1)
        q_BTHD = q_BTX.unflatten(-1, (-1, $D_HEAD))
        gate_BTHD = gate_BTX.unflatten(-1, (-1, $D_VALUE))
        #elif reused
        q_BTHD = self.query(x_BTE).unflatten(-1, (-1, $D_HEAD))
        #if gate
        q_BTHD, gate_BTHD = q_BTHD.chunk(2, dim=2)
        #end
        #elif tied
        qk_BTHD = self.qk(x_BTE).unflatten(-1, (-1, $D_HEAD))
        #if gate
        q_BTHD, k_BTHD, gate_BTHD = qk_BTHD.split(($N_HEADS, $key_heads, $N_HEADS), dim=2)
        #else
        q_BTHD, k_BTHD = qk_BTHD.split(($N_HEADS, $key_heads), dim=2)
        #end
        v_BTHD = k_BTHD  # one projection for both
        #else
        #if d_value
        $value_names = self.qkv(x_BTE).split(self.sizes, dim=-1)
        q_BTHD, k_BTHD = (x.unflatten(-1, (-1, $D_HEAD)) for x in (q_BTX, k_BTX))
        v_BTHD = v_BTX.unflatten(-1, (-1, $D_VALUE))
        #else
        qkv_BTHD = self.qkv(x_BTE).unflatten(-1, (-1, $D_HEAD))
        #end
        #if d_value
        #if gate
        gate_BTHD = gate_BTX.unflatten(-1, (-1, $D_VALUE))
        #end
        #elif grouped_gate
        heads = ($N_HEADS, $N_KV_HEADS, $N_KV_HEADS, $N_HEADS)
        q_BTHD, k_BTHD, v_BTHD, gate_BTHD = qkv_BTHD.split(heads, dim=2)
        #elif gate
        q_BTHD, k_BTHD, v_BTHD, gate_BTHD = qkv_BTHD.chunk(4, dim=2)
        #elif grouped
        q_BTHD, k_BTHD, v_BTHD = qkv_BTHD.split(($N_HEADS, $N_KV_HEADS, $N_KV_HEADS), dim=2)
        #else
        q_BTHD, k_BTHD, v_BTHD = qkv_BTHD.chunk(3, dim=2)
        #end
        #end
        #if clip_first
        #if reused
        q_BTHD = q_BTHD.clamp(-$CLIP, $CLIP)
        #else
        q_BTHD, k_BTHD, v_BTHD = (x.clamp(-$CLIP, $CLIP) for x in (q_BTHD, k_BTHD, v_BTHD))
        #end
        #end
        #if norms_full
        q_BTHD = self.q_norm(q_BTHD.flatten(2)).view_as(q_BTHD)  # over all heads of a token
        #if not reused
        k_BTHD = self.k_norm(k_BTHD.flatten(2)).view_as(k_BTHD)
        #end
        #elif norms_before
        #if reused
        q_BTHD = self.q_norm(q_BTHD)
        #else
        q_BTHD, k_BTHD = self.q_norm(q_BTHD), self.k_norm(k_BTHD)
        #end
        #end
        #if v_norm
        v_BTHD = self.v_norm(v_BTHD)
        #end
        #if clip_last
        #if reused
        q_BTHD = q_BTHD.clamp(-$CLIP, $CLIP)
        #else
        q_BTHD, k_BTHD, v_BTHD = (x.clamp(-$CLIP, $CLIP) for x in (q_BTHD, k_BTHD, v_BTHD))
        #end
        #end
        #if reused
        q_BHTD = q_BTHD.transpose(1, 2)
        #else
        q_BHTD, k_BHTD, v_BHTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
        #if value_scale
        v_BHTD = v_BHTD * $VALUE_SCALE
        #end
        #end
'''

_POSITION = """
        #if both
        q_BHTD, k_BHTD = $both
        #end
        #if query
        q_BHTD = $query
        #end
        #if key
        k_BHTD = $key
        #end
"""

_REST = """
        #if reused
        #if norms_after
        q_BHTD = self.q_norm(q_BHTD)
        #end
        # An earlier layer appended to these.
        k_BHSD, v_BHSD = cache["keys"], cache["values"]
        #else
        #if norms_after
        q_BHTD, k_BHTD = self.q_norm(q_BHTD), self.k_norm(k_BHTD)
        #end
        k_BHSD, v_BHSD = append_to(cache, "keys", k_BHTD), append_to(cache, "values", v_BHTD)
        #end
        mask_TS = $mask
"""

_END = """
        #if gate
        return self.output((y_BHTD.transpose(1, 2) * gate_BTHD.sigmoid()).flatten(2))
        #else
        return self.output(y_BHTD.transpose(1, 2).flatten(2))
        #end
"""

HEADED_FIELDS = (
    "n_heads",
    "d_head",
    "d_value",
    "value_scale",
    "qkv_bias",
    "output_bias",
    "dropout",
    "window",
    "chunk",
    "scale",
    "qk_norm",
    "qk_norm_width",
    "qk_norm_order",
    "v_norm",
    "tie_kv",
    "reuse_kv",
    "softcap",
    "sinks",
    "clip_qkv",
    "clip_order",
    "output_gate",
    "head_gate",
)
"""Fields of `HeadedSpec` that the template writes."""


def headed(spec: HeadedSpec, context: WritingContext, *, grouped: bool) -> Written:
    """Return the attention as a class."""
    pattern = spec.mask_pattern()
    if type(pattern).__name__ not in ("NoneType", "Chunks"):
        raise NotWrittenError(f"attention {spec.name!r} cannot be written out: its mask pattern is {pattern}")
    heads = spec.head_shape()
    position, sometimes = relative_position(context, heads, together=True)
    mask, mask_call, settings = causal_mask(context, spec.window, spec.chunk)
    settings |= {
        "N_HEADS": Setting(heads.n_heads, "heads of the queries"),
        "D_HEAD": Setting(heads.d_head, "features of a head"),
    }
    if grouped:
        settings["N_KV_HEADS"] = Setting(heads.n_kv_heads, "heads of keys and values, shared by several query heads")
    for name, value, comment in (
        ("ATTENTION_SOFTCAP", spec.softcap, "soft bound of the scores"),
        ("CLIP", spec.clip_qkv, "bound of queries, keys and values"),
        ("D_VALUE", spec.d_value, "features of a value"),
        ("VALUE_SCALE", None if spec.value_scale == 1 else spec.value_scale, "factor of the values"),
        ("ATTENTION_SCALE", spec.scale, "factor of the dot products"),
        ("ATTENTION_DROPOUT", spec.dropout or None, "share of the attention weights dropped in training"),
    ):
        if value is not None:
            settings[name] = Setting(value, comment)
    reused = spec.kv_source(context.parts.index, context.layers) is not None
    tied = spec.tie_kv and not reused
    parts = {"causal_mask": mask} | ({} if reused else {"append_to": append_to})
    full, after = spec.qk_norm_width == "full", spec.qk_norm_order == "after"
    if spec.qk_norm is not None:
        q_dim = Name("$N_HEADS * $D_HEAD" if full else "$D_HEAD")
        k_dim = Name(("$N_KV_HEADS" if grouped else "$N_HEADS") + " * $D_HEAD") if full else q_dim
        parts["q_norm"] = written(spec.qk_norm, context, dim=q_dim)
        parts["k_norm"] = written(spec.qk_norm, context, dim=k_dim)
        if spec.qk_norm_width == "each-head":
            norm = written(spec.qk_norm, context, dim=Name("$NORM_DIM"))
            parts["q_norm"] = each_head(norm, "$N_HEADS")
            parts["k_norm"] = each_head(norm, "$N_KV_HEADS" if grouped else "$N_HEADS")
        if reused:
            del parts["k_norm"]
    if spec.v_norm is not None and not reused:
        parts["v_norm"] = written(spec.v_norm, context, dim=Name("$D_HEAD" if spec.d_value is None else "$D_VALUE"))
    key_heads = "$N_KV_HEADS" if grouped else "$N_HEADS"
    n_packed = "3 * $N_HEADS" if not grouped else f"($N_HEADS + 2 * {key_heads})"
    if spec.output_gate:
        n_packed = f"2 * ($N_HEADS + {key_heads})" if grouped else "4 * $N_HEADS"
    d_value = "$D_HEAD" if spec.d_value is None else "$D_VALUE"
    n_queries = "2 * $N_HEADS" if spec.output_gate else "$N_HEADS"
    if reused or tied:
        n_packed = n_queries if reused else f"({n_queries} + {key_heads})"
    own_values = spec.d_value is not None and not reused
    value_gate = spec.d_value is not None and reused and spec.output_gate
    packed = "sum(self.sizes)" if own_values or value_gate else f"{n_packed} * $D_HEAD"
    flags = {
        "d_value": spec.d_value is not None,
        "own_values": own_values,
        "value_gate": value_gate,
        "value_scale": spec.value_scale != 1,
        "norms": spec.qk_norm is not None,
        "norms_full": spec.qk_norm is not None and full,
        "norms_before": spec.qk_norm is not None and not after,
        "norms_after": spec.qk_norm is not None and after,
        "clip_first": spec.clip_qkv is not None and spec.clip_order == "before",
        "clip_last": spec.clip_qkv is not None and spec.clip_order == "after",
        "sinks": spec.sinks,
        "gate": spec.output_gate,
        "grouped": grouped,
        "grouped_gate": grouped and spec.output_gate,
        "position": position is not None and not position.is_function,
        "reused": reused,
        "tied": tied,
        "v_norm": "v_norm" in parts,
    }
    text = fill(
        _START,
        description="Grouped-query attention: several query heads share a key/value head."
        if grouped
        else "Causal multi-head attention.",
        formula="y = W_o [softmax(q kᵀ · scale + mask) v of each head], "
        + ("q = W_q x, with k and v of an earlier layer." if reused else "with q, k, v = W_qkv x."),
        packed_name="query" if reused else "qk" if tied else "qkv",
        packed=linear(context, "D_MODEL", packed, bias=spec.qkv_bias),
        key_heads=key_heads,
        value_names="q_BTX, k_BTX, v_BTX" + (", gate_BTX" if spec.output_gate else ""),
        projection=linear(context, f"$N_HEADS * {d_value}", "D_MODEL", bias=spec.output_bias),
        head_gate="" if spec.head_gate is None else linear(context, "D_MODEL", "$N_HEADS", bias=False),
        **flags,
    )
    text += _positioned(position, sometimes, parts, settings, context, reused=reused)
    text += fill(_REST, mask=mask_call, norms_after=flags["norms_after"], reused=reused)
    text += attend(
        position,
        scale="$ATTENTION_SCALE" if spec.scale is not None else "",
        repeats=grouped,
        dropout=spec.dropout,
        softcap=spec.softcap is not None,
        sinks=spec.sinks,
    )
    text += head_gate(spec.head_gate) + fill(_END, gate=spec.output_gate)
    variant = position.variant or position.name.title() if position is not None else "Plain"
    variant = f"reusing {variant}" if reused else variant
    fields = [*HEADED_FIELDS, *(["n_kv_heads"] if grouped else [])]
    return Written("Attention", text, settings=settings, parts=parts, section="attention", variant=variant, fields=fields)


def _positioned(
    position: Written | None,
    sometimes: bool,
    parts: dict[str, Written],
    settings: dict[str, Setting],
    context: WritingContext,
    *,
    reused: bool,
) -> str:
    """Return the lines that apply the position to queries and own keys, and add the position to the parts."""
    if position is None:
        return ""
    parts |= position_parts(position)
    names = {"query": {"x": "q_BHTD"}, "key": {"x": "k_BHTD"}, "both": {"q": "q_BHTD", "k": "k_BHTD"}}
    lines = fill(
        _POSITION,
        **{
            purpose: position.call(purpose, **given)
            if purpose in position.calls and not (reused and purpose == "key")
            else ""
            for purpose, given in names.items()
        },
    )
    lines = "" if lines == "\n" else lines
    if not sometimes:
        return lines
    if not lines:
        raise NotWrittenError(
            f"position {context.parts.position.name!r} cannot be written out if only some layers have it",
            hint="Set the same position for all layers.",
        )
    settings["HAS_POSITION"] = Setting(bool(context.parts.position.uses - {"embed"}), "whether positions are applied")
    return "        if $HAS_POSITION:\n" + "".join(f"    {line}\n" for line in lines.splitlines())
