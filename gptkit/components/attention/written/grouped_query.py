"""Template of `multi-head` and `grouped-query`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.dynamic_convolution import dynamic_convolution
from gptkit.components.attention.written.headed_text import END, OWN, OWN_END, POSITION, REUSED, REUSED_END, START
from gptkit.components.attention.written.parts import (
    any_indexer,
    append_to,
    attend,
    causal_mask,
    head_gate,
    input_width,
    position_calls,
    position_parts,
    relative_position,
)
from gptkit.components.attention.written.relative_logits import relative_logits
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written
from gptkit.kinds.written_convolution import short_convolution
from gptkit.kinds.written_each_head import each_head

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["headed"]

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
    "gate_bias",
    "head_gate",
    "output_norm",
    "kv_conv",
    "kv_conv_form",
    "relative_width",
    "relative_extent",
    "relative_norm",
    "token_sinks",
    "k_norm",
)
"""Fields of `HeadedSpec` that the template writes."""


def headed(spec: HeadedSpec, context: WritingContext, *, grouped: bool, indexer: Written | None = None) -> Written:
    """Return the attention as a class.

    Args:
        grouped: whether query heads share heads of keys and values.
        indexer: the class that chooses the keys of a query; None if queries attend to all that the mask allows.
    """
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
        ("KV_CONV", spec.kv_conv, "tokens of the convolutions of keys and values"),
        ("ATTENTION_DROPOUT", spec.dropout or None, "share of the attention weights dropped in training"),
    ):
        if value is not None:
            settings[name] = Setting(value, comment)
    reused = spec.kv_source(context.parts.index, context.layers) is not None
    settings["REUSES_KV"] = Setting(reused, "whether keys and values are those of an earlier layer")
    settings["TIES_KV"] = Setting(spec.tie_kv, "whether keys are the values too")
    parts = {"causal_mask": mask, "append_to": append_to}
    # Layers without an indexer are written as those with one, so that one class serves both.
    indexed = any_indexer(spec, context)
    settings["SPARSE"] = Setting(indexer is not None, "whether an indexer chooses the keys of a query")
    if indexer is not None:
        parts["indexer"] = indexer
        settings["INDEX_HEADS"] = indexer.settings["INDEX_HEADS"]
    full, after = spec.qk_norm_width == "full", spec.qk_norm_order == "after"
    key_heads = "$N_KV_HEADS" if grouped else "$N_HEADS"
    if spec.qk_norm is not None:
        for name, norm, n in (("q_norm", spec.qk_norm, "$N_HEADS"), ("k_norm", spec.k_norm or spec.qk_norm, key_heads)):
            if spec.qk_norm_width == "each-head":
                parts[name] = each_head(norm, context, n)
            else:
                parts[name] = written(norm, context, dim=Name(f"{n} * $D_HEAD" if full else "$D_HEAD"))
    if spec.v_norm is not None:
        parts["v_norm"] = written(spec.v_norm, context, dim=Name("$D_HEAD" if spec.d_value is None else "$D_VALUE"))
    d_input, own = input_width(context)
    settings |= own
    dynamic = spec.kv_conv is not None and spec.kv_conv_form == "dynamic"
    if dynamic:
        for name, size in (("key", "$D_HEAD"), ("value", "$D_HEAD" if spec.d_value is None else "$D_VALUE")):
            parts[f"{name}_convolution"] = dynamic_convolution(spec, context, key_heads, f"{key_heads} * {size}")
    elif spec.kv_conv is not None:
        parts["short_convolution"] = short_convolution
    if spec.relative_width is not None:
        parts["relative_logits"] = relative_logits(spec, context)
    n_packed = "3 * $N_HEADS" if not grouped else f"($N_HEADS + 2 * {key_heads})"
    if spec.output_gate:
        n_packed = f"2 * ($N_HEADS + {key_heads})" if grouped else "4 * $N_HEADS"
    d_value = "$D_HEAD" if spec.d_value is None else "$D_VALUE"
    gate_bias = spec.output_gate and spec.gate_bias
    gate = "(gate_BTHD + self.gate_bias[:, None])" if gate_bias else "gate_BTHD"
    outputs = f"(y_BHTD.transpose(1, 2) * {gate}.sigmoid())" if spec.output_gate else "y_BHTD.transpose(1, 2)"
    outputs += ".flatten(2)"
    if spec.output_norm is not None:
        parts["output_norm"] = written(spec.output_norm, context, dim=Name(f"$N_HEADS * {d_value}"))
        outputs = f"self.output_norm({outputs})"
    n_queries = "2 * $N_HEADS" if spec.output_gate else "$N_HEADS"
    value_gate = spec.d_value is not None and spec.output_gate
    packed = {
        "packed_q": "sum(self.sizes)" if value_gate else f"{n_queries} * $D_HEAD",
        "packed_qk": f"({n_queries} + {key_heads}) * $D_HEAD",
        "packed_qkv": f"{n_packed} * $D_HEAD" if spec.d_value is None else "sum(self.sizes)",
    }
    flags = {
        "reuses": any(layer.attention.kv_source(layer.index, context.layers) is not None for layer in context.layers),
        "d_value": spec.d_value is not None,
        "value_gate": value_gate,
        "value_scale": spec.value_scale != 1,
        "norms": spec.qk_norm is not None,
        "own_norms": spec.qk_norm is not None or spec.v_norm is not None,
        "norms_full": spec.qk_norm is not None and full,
        "norms_before": spec.qk_norm is not None and not after,
        "norms_after": spec.qk_norm is not None and after,
        "clip_first": spec.clip_qkv is not None and spec.clip_order == "before",
        "clip_last": spec.clip_qkv is not None and spec.clip_order == "after",
        "sinks": spec.sinks,
        "gate_bias": gate_bias,
        "indexed": indexed,
        "gate": spec.output_gate,
        "grouped": grouped,
        "grouped_gate": grouped and spec.output_gate,
        "position": position is not None and not position.is_function,
        "v_norm": spec.v_norm is not None,
        "output_norm": spec.output_norm is not None,
        "kv_conv": spec.kv_conv is not None,
        "dynamic_conv": dynamic,
        "scaled_conv": spec.kv_conv is not None and spec.kv_conv_form == "scaled",
        "kv_inputs": context.kv_inputs,
        "token_sinks": spec.token_sinks,
        "relative": spec.relative_width is not None,
        "relative_norm": spec.relative_norm is not None,
    }
    values = {
        "description": "Grouped-query attention: several query heads share a key/value head."
        if grouped
        else "Causal multi-head attention.",
        **{name: linear(context, d_input, width, bias=spec.qkv_bias) for name, width in packed.items()},
        "key_heads": key_heads,
        "value_size": d_value,
        "value_names": "q_BTX, k_BTX, v_BTX" + (", gate_BTX" if spec.output_gate else ""),
        "projection": linear(context, f"$N_HEADS * {d_value}", "D_MODEL", bias=spec.output_bias),
        "head_gate": "" if spec.head_gate is None else linear(context, d_input, "$N_HEADS", bias=False),
        "mask": mask_call,
        "addition": ", added_BTX: Tensor" if context.adds else _kv_inputs(context),
        "key_projection": linear(context, d_input, f"{key_heads} * $D_HEAD", bias=spec.qkv_bias),
        "value_projection": linear(context, d_input, f"{key_heads} * {d_value}", bias=spec.qkv_bias),
        "sink_projection": linear(context, d_input, "$N_HEADS", bias=False),
        **_convolved(dynamic=dynamic, kv_inputs=context.kv_inputs),
        **{
            f"own_{name}": f"(self.{name}(x_BTE) + added_BTX)" if context.adds else f"self.{name}(x_BTE)"
            for name in ("qk", "qkv")
        },
    }
    # The branch of layers with the keys and values of an earlier one, and that of the others.
    template = START
    for reuses, start, end in ((True, REUSED, REUSED_END), (False, OWN, OWN_END)):
        template += start.lstrip("\n") + _positioned(position, sometimes, parts, settings, context, reused=reuses)
        template += end.lstrip("\n")
    text = fill(template, **flags, **values)
    attended = attend(
        position,
        scale="$ATTENTION_SCALE" if spec.scale is not None else "",
        repeats=grouped,
        dropout=spec.dropout,
        softcap=spec.softcap is not None,
        sinks=spec.sinks or spec.token_sinks,
        **_sink_logits(spec),
        added="" if spec.relative_width is None else "self.relative(q_BHTR, positions_T, k_BHSD.shape[2])",
    )
    text += attended.replace("mask_TS", "mask_BHTS") if indexed else attended
    text += head_gate(spec.head_gate) + fill(END, outputs=outputs)
    variant = position.variant or position.name.title() if position is not None else "Plain"
    variant = f"relative {variant}" if spec.relative_width is not None else variant
    variant = f"reusing {variant}" if reused else f"separate {variant}" if context.kv_inputs else variant
    fields = [*HEADED_FIELDS, *(["n_kv_heads"] if grouped else [])]
    return Written(
        "Attention",
        text,
        settings=settings,
        parts=parts,
        calls={"addition widths": str(_widths(spec))} if context.adds else {},
        section="attention",
        variant=variant,
        fields=fields,
    )


def _kv_inputs(context: WritingContext) -> str:
    """Return the parameters for inputs of keys and values; empty where these are the input of queries."""
    return ", key_BTE: Tensor, value_BTE: Tensor" if context.kv_inputs else ""


def _sink_logits(spec: HeadedSpec) -> dict[str, str]:
    """Return the argument of `attend` for logits of sinks that depend on the query's token."""
    if not spec.token_sinks:
        return {}
    own = " + self.sinks[:, None, None]" if spec.sinks else ""
    return {"sink_logits": f"self.token_sinks(x_BTE).mT[..., None]{own}"}


def _convolved(*, dynamic: bool, kv_inputs: bool) -> dict[str, str]:
    """Return the expressions of convolved keys and values, each with what the next tokens need."""
    result = {}
    for name, part in (("key", "k"), ("value", "v")):
        call = f"$short_convolution({part}_BTX, self.{part}_conv, start_BTX)"
        if dynamic:
            call = f"self.{part}_conv({part}_BTX, {f'{name}_BTE' if kv_inputs else 'x_BTE'}, start_BTX)"
        result[f"convolved_{name}s"] = call
    return result


def _widths(spec: HeadedSpec) -> tuple[int, ...]:
    """Return the features of queries, keys, values and gates in the packed projection."""
    heads = spec.head_shape()
    d_value = spec.d_value or heads.d_head
    widths = [heads.n_heads * heads.d_head, heads.n_kv_heads * heads.d_head]
    widths += [] if spec.tie_kv else [heads.n_kv_heads * d_value]
    return (*widths, *([heads.n_heads * d_value] if spec.output_gate else []))


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
    calls = position_calls(position)
    relative = "unrotated" in position.calls and "relative_logits" in parts
    calls["unrotated"] = position.call("unrotated", x="q_BHTR") if relative else ""
    lines = fill(POSITION, **(calls | {"key": ""} if reused else calls))
    lines = "" if lines == "\n" else lines
    if not sometimes or (reused and not lines):
        return lines
    if not lines:
        raise NotWrittenError(
            f"position {context.parts.position.name!r} cannot be written out if only some layers have it",
            hint="Set the same position for all layers.",
        )
    settings["HAS_POSITION"] = Setting(bool(context.parts.position.uses - {"embed"}), "whether positions are applied")
    return "        if $HAS_POSITION:\n" + "".join(f"    {line}\n" for line in lines.splitlines())
