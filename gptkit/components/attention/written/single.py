"""Templates of the attentions for teaching: `simple`, `single-head` and `stacked-heads`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import (
    append_to,
    attend,
    causal_mask,
    common_position,
    position_calls,
    position_parts,
)
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear

if TYPE_CHECKING:
    from gptkit.components.attention.simple import SimpleSpec
    from gptkit.components.attention.single_head import SingleHeadSpec
    from gptkit.components.attention.stacked_heads import StackedHeadsSpec

__all__ = ["simple", "single_head", "stacked_heads"]

_CLASS = '''
class $class_name(nn.Module):
    """$description"""

    #if weights
    def __init__(self$parameters) -> None:
        super().__init__()
        #if stacked
        self.stack = nn.ModuleList($head for _ in range($N_HEADS))
        #else
        self.W_query = $w_in
        self.W_key = $w_in
        self.W_value = $w_in
        #end
        #if output
        self.W_output = $w_out
        #end
        #if position
        self.position = $position
        #end

    #elif position
    def __init__(self$parameters) -> None:
        super().__init__()
        self.position = $position

    #end
    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if stacked
        projected = [head(x_BTE) for head in self.stack]
        q_BHTD, k_BHTD, v_BHTD = (torch.stack(each, dim=1) for each in zip(*projected, strict=True))
        #elif weights
        q_BHTD, k_BHTD = self.W_query(x_BTE)[:, None], self.W_key(x_BTE)[:, None]  # one head
        v_BHTD = self.W_value(x_BTE)[:, None]
        #else
        q_BHTD = k_BHTD = v_BHTD = x_BTE[:, None]  # one head
        #end
        #if both
        q_BHTD, k_BHTD = $both
        #end
        #if query
        q_BHTD = $query
        #end
        #if key
        k_BHTD = $key
        #end
        k_BHSD, v_BHSD = append_to(cache, "keys", k_BHTD), append_to(cache, "values", v_BHTD)
        mask_TS = $mask
'''

_HEAD = '''
class $class_name(nn.Module):
    """The queries, keys and values of a head."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.W_query = $w_in
        self.W_key = $w_in
        self.W_value = $w_in

    def forward(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens, (B, T, E) to three times (B, T, D)."""
        return self.W_query(x_BTE), self.W_key(x_BTE), self.W_value(x_BTE)
'''


def simple(spec: SimpleSpec, context: WritingContext) -> Written:
    """Return the attention as a class."""
    description = "Attention without trained weights: y = softmax(x xᵀ + mask) x."
    heads = HeadShape(1, 1, context.d_model)
    fields = ("scaled", "dropout", "window")
    return _class(
        spec,
        context,
        heads,
        description,
        "" if spec.scaled else "1.0",
        "D_MODEL",
        weights=False,
        output=False,
        fields=fields,
    )


def single_head(spec: SingleHeadSpec, context: WritingContext) -> Written:
    """Return the attention as a class."""
    assert spec.d_head is not None
    description = "Attention with one head: y = softmax(q kᵀ · scale + mask) v."
    heads = HeadShape(1, 1, spec.d_head)
    scale = "" if spec.scale is None else "$ATTENTION_SCALE"
    fields = ("d_head", "qkv_bias", "output", "dropout", "window", "scale")
    return _class(spec, context, heads, description, scale, "$D_HEAD", weights=True, output=bool(spec.output), fields=fields)


def stacked_heads(spec: StackedHeadsSpec, context: WritingContext) -> Written:
    """Return the attention as a class, and that of a head."""
    description = "Single heads side by side, whose outputs softmax(q kᵀ · scale + mask) v are concatenated."
    scale = "" if spec.scale is None else "$ATTENTION_SCALE"
    fields = ("n_heads", "qkv_bias", "dropout", "window", "scale")
    return _class(
        spec, context, spec.heads(context), description, scale, "$D_HEAD", weights=True, output=False, fields=fields
    )


def _class(
    spec: SimpleSpec | SingleHeadSpec | StackedHeadsSpec,
    context: WritingContext,
    heads: HeadShape,
    description: str,
    scale: str,
    width: str,
    *,
    weights: bool,
    output: bool,
    fields: Collection[str],
) -> Written:
    position = common_position(spec, context, heads, together=True)
    mask, mask_call, settings = causal_mask(context, spec.window, None)
    parts = {"causal_mask": mask, "append_to": append_to}
    calls = position_calls(position)
    if position is not None:
        parts |= position_parts(position)
    stacked = spec.name == "stacked-heads"
    w_in = linear(context, "D_MODEL", "$D_HEAD", bias=bool(getattr(spec, "qkv_bias", False)))
    if stacked:
        settings["N_HEADS"] = Setting(heads.n_heads, "heads")
        head_settings = {"D_HEAD": Setting(heads.d_head, "features of a head")}
        parts["head"] = Written("Head", fill(_HEAD, w_in=w_in), settings=head_settings, section="attention")
    if weights:
        settings["D_HEAD"] = Setting(heads.d_head, "features of a head")
        if scale:
            settings["ATTENTION_SCALE"] = Setting(getattr(spec, "scale", None), "factor of the dot products")
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    text = fill(
        _CLASS,
        description=description,
        weights=weights,
        stacked=stacked,
        position="position" in parts,
        output=output,
        w_in=w_in,
        w_out=linear(context, "$D_HEAD", "D_MODEL", bias=False),
        mask=mask_call,
        **calls,
    )
    lines = attend(position, scale=scale, dropout=spec.dropout).replace("$D_HEAD", width)
    result = "y_BHTD.transpose(1, 2).flatten(2)" if stacked else "y_BHTD[:, 0]"
    text += f"{lines}        return {f'self.W_output({result})' if output else result}\n"
    return Written("Attention", text, settings=settings, parts=parts, section="attention", fields=fields)
