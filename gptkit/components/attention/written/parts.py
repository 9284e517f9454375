"""What the templates of attentions share: positions, the mask, the softmax, and the decoding cache."""

from __future__ import annotations

from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import NotWrittenError, Setting, WritingContext, Written, fill, written

__all__ = [
    "any_indexer",
    "append_to",
    "attend",
    "causal_mask",
    "common_position",
    "head_gate",
    "input_width",
    "position_calls",
    "position_parts",
    "relative_position",
]

_APPEND = '''
def $class_name(cache: dict[str, Tensor], name: str, new_BHTD: Tensor) -> Tensor:
    """Append to what a layer's cache keeps of earlier tokens, (B, H, T, D) to (B, H, S, D)."""
    cache[name] = torch.cat((cache[name], new_BHTD), dim=2) if name in cache else new_BHTD
    return cache[name]
'''

_MASK = '''
def $class_name($signature) -> Tensor:
    """Return which keys each query may attend: $which, (T, S)."""
    keys_S = torch.arange(n_keys, device=positions_T.device)
    #if plain
    return positions_T[:, None] >= keys_S
    #else
    distance_TS = positions_T[:, None] - keys_S
    mask_TS = distance_TS >= 0
    #if window
    #if optional_window
    if window is not None:
        mask_TS = mask_TS & (distance_TS < window)
    #else
    mask_TS = mask_TS & (distance_TS < window)
    #end
    #end
    #if chunk
    if chunk is not None:
        mask_TS = mask_TS & (positions_T[:, None] // chunk == keys_S // chunk)
    #end
    return mask_TS
    #end
'''

_SOFTMAX = """
        #if repeats
        k_BHSD = k_BHSD.repeat_interleave($N_HEADS // $N_KV_HEADS, dim=1)  # for each query head
        v_BHSD = v_BHSD.repeat_interleave($N_HEADS // $N_KV_HEADS, dim=1)
        #end
        scores_BHTS = $scores
        #if content
        scores_BHTS = scores_BHTS + $content
        #end
        #if softcap
        scores_BHTS = $ATTENTION_SOFTCAP * torch.tanh(scores_BHTS / $ATTENTION_SOFTCAP)
        #end
        #if bias
        scores_BHTS = scores_BHTS + $bias
        #end
        #if added
        scores_BHTS = scores_BHTS + $added
        #end
        scores_BHTS = scores_BHTS.masked_fill(~mask_TS, -torch.inf)
        #if sinks
        sinks_BHT1 = $sink_logits
        weights_BHTS = torch.cat((scores_BHTS, sinks_BHT1), dim=-1).softmax(dim=-1)[..., :-1]
        #else
        weights_BHTS = scores_BHTS.softmax(dim=-1)
        #end
        #if dropout
        weights_BHTS = F.dropout(weights_BHTS, $ATTENTION_DROPOUT, self.training)
        #end
        y_BHTD = weights_BHTS @ v_BHSD
        #if values
        y_BHTD = y_BHTD + $values
        #end
"""

_HEAD_GATE = """
        y_BHTD = y_BHTD * $function(self.head_gate(x_BTE)).mT[..., None]  # one for each head
"""

append_to = Written("append_to", fill(_APPEND), section="attention")
"""The function that keeps keys and values of earlier tokens."""


def causal_mask(context: WritingContext, window: int | None, chunk: int | None) -> tuple[Written, str, dict[str, Setting]]:
    """Return the function of the mask, which is one for all layers, the call of it, and the settings in the call."""
    attentions = context.attentions or [layer.attention for layer in context.layers]
    windows = {getattr(attention, "window", None) for attention in attentions}
    chunks = {getattr(attention, "chunk", None) for attention in attentions}
    any_window, any_chunk = windows != {None}, chunks != {None}
    signature = "positions_T: Tensor, n_keys: int"
    which = "its own and earlier ones"
    if any_window:
        signature += ", window: int | None = None" if None in windows else ", window: int"
        which = "the last `window` ones"
    if any_chunk:
        signature += ", chunk: int | None = None"
        which += ", within chunks"
    text = fill(
        _MASK,
        signature=signature,
        which=which,
        plain=not (any_window or any_chunk),
        window=any_window,
        optional_window=None in windows,
        chunk=any_chunk,
    )
    settings: dict[str, Setting] = {}
    call = "causal_mask(positions_T, k_BHSD.shape[2]"
    # A layer without a window is written as others, so that one class serves both; `window=None` is omitted.
    if any_window:
        settings["WINDOW"] = Setting(window, "tokens that a token attends to, itself included")
        call += ", window=$WINDOW"
    if any_chunk:
        settings["CHUNK"] = Setting(chunk, "positions in a chunk of attention")
        call += ", chunk=$CHUNK"
    return Written("causal_mask", text, section="attention"), call + ")", settings


def input_width(context: WritingContext) -> tuple[str, dict[str, Setting]]:
    """Return the expression of the features of the attention's input, and the settings in it."""
    if context.d_output is None:
        return "D_MODEL", {}
    return "$D_INPUT", {"D_INPUT": Setting(context.d_model, "features of a token in the input of the attention")}


def any_indexer(spec: AttentionSpec, context: WritingContext) -> bool:
    """Return whether any layer with such an attention has an indexer, which chooses the keys of a query."""
    families = [(type(each.attention), type(spec)) for each in context.layers if hasattr(each.attention, "index_heads")]
    return any(issubclass(a, b) or issubclass(b, a) for a, b in families)


def relative_position(context: WritingContext, heads: HeadShape, *, together: bool = False) -> tuple[Written | None, bool]:
    """Return the layer's relative position, and whether only some layers with this attention have one.

    A layer without a position is written as the others of its kind, so that one class serves both.

    Args:
        together: the attention can rotate queries and keys in one call ("both").
    """
    own = context.parts.position
    alike = [layer.position for layer in context.layers if type(layer.attention) is type(context.parts.attention)]
    relative = [position for position in alike if position.uses - {"embed"}]
    without = len(relative) < len(alike)
    kinds = {type(position) for position in relative}
    chosen = own if own.uses - {"embed"} else relative[0] if len(kinds) == 1 else None
    if chosen is None:
        return None, False
    if own.uses - {"embed"} and type(own) not in kinds:  # used by a head, not by a layer
        without = False
    result = written(chosen, context, heads=heads)
    if chosen.depends_on_length and "recompute" not in result.calls:
        raise NotWrittenError(
            f"position {chosen.name!r} cannot be written out as it is configured here: it depends on the length of the text",
            hint="Choose a position or scaling that does not.",
        )
    if "both" in result.calls and not together:
        raise NotWrittenError(
            f"position {chosen.name!r} cannot be written out with attention {context.parts.attention.name!r}, which rotates "
            "queries and keys in separate calls",
            hint="Choose attention multi-head or grouped-query, or position rotary.",
        )
    return result, without and len(kinds) == 1


def common_position(
    spec: AttentionSpec, context: WritingContext, heads: HeadShape, *, together: bool = False
) -> Written | None:
    """Return the relative position that all layers with this attention have, or none of them.

    Raises:
        NotWrittenError: only some of them have one.
    """
    position, sometimes = relative_position(context, heads, together=together)
    if sometimes:
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out if only some layers have a position",
            hint="Set the same position for all layers.",
        )
    return position


def position_calls(position: Written | None) -> dict[str, str]:
    """Return the expressions of rotated queries and keys, separate or both in one call; empty where there is none."""
    given = {"query": {"x": "q_BHTD"}, "key": {"x": "k_BHTD"}, "both": {"q": "q_BHTD", "k": "k_BHTD"}}
    calls = {} if position is None else position.calls
    return {
        purpose: position.call(purpose, **names) if position is not None and purpose in calls else ""
        for purpose, names in given.items()
    }


def position_parts(position: Written) -> dict[str, Written]:
    """Return what the calls of a position name: the function or module itself, and functions that it uses beside it."""
    named = {
        name: part for name, part in position.parts.items() if any(f"${name}" in call for call in position.calls.values())
    }
    return {position.name if position.is_function else "position": position, **named}


def attend(
    position: Written | None,
    *,
    scale: str,
    repeats: bool = False,
    dropout: float = 0.0,
    softcap: bool = False,
    sinks: bool = False,
    added: str = "",
    sink_logits: str = "self.sinks[:, None, None].expand(*scores_BHTS.shape[:3], 1)",
) -> str:
    """Return the lines from queries, keys, values and mask to the heads' outputs, with torch's fused attention if possible.

    Args:
        position: the relative position; its bias requires the scores.
        scale: the expression of the scale; empty for 1/√D.
        repeats: several query heads share a key/value head.
        added: the expression of a further term of the scores, after their soft bound; empty for none.
        sink_logits: the expression of the logits of sinks, (B, H, T, 1).
    """
    calls = {} if position is None else position.calls
    unknown = set(calls) - {"query", "unrotated", "key", "both", "bias", "content", "values", "recompute"}
    if unknown:
        raise NotWrittenError(f"a position has calls that attentions do not use: {', '.join(sorted(unknown))}")
    scaled = "q_BHTD" if scale == "1.0" else f"q_BHTD * {scale}" if scale else "q_BHTD / $D_HEAD**0.5"
    names = {"q": scaled, "k": "k_BHSD", "n_keys": "k_BHSD.shape[2]", "weights": "weights_BHTS"}
    terms = {
        purpose: position.call(purpose, **names) if position is not None and purpose in calls else ""
        for purpose in ("bias", "content", "values")
    }
    # A position that rotates both may change the width of a head, on which the default scale of torch's function depends.
    if any(terms.values()) or added or softcap or sinks or "both" in calls:
        product = "q_BHTD @ k_BHSD.mT"
        if scale != "1.0":
            product += f" * {scale}" if scale else " / $D_HEAD**0.5"
        flags = {"repeats": repeats, "softcap": softcap, "sinks": sinks, "dropout": bool(dropout)}
        terms |= {"sink_logits": sink_logits}
        return fill(_SOFTMAX, **flags, scores=product, added=added, **terms)
    options = [
        *(["dropout_p=$ATTENTION_DROPOUT if self.training else 0.0"] if dropout else []),
        *([f"scale={scale}"] if scale else []),
        *(["enable_gqa=True"] if repeats else []),
    ]
    arguments = ", ".join(["q_BHTD", "k_BHSD", "v_BHSD", "mask_TS", *options])
    return f"        y_BHTD = F.scaled_dot_product_attention({arguments})\n"


def head_gate(function: str | None) -> str:
    """Return the lines that multiply each head's output by a number; empty without a gate.

    Args:
        function: "sigmoid" or "softplus", of the projection `head_gate`; None without a gate.
    """
    if function is None:
        return ""
    return fill(_HEAD_GATE, function="F.softplus" if function == "softplus" else "torch.sigmoid")
