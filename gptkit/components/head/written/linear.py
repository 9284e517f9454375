"""Template of head `linear`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.head.linear import LinearHeadSpec
    from gptkit.kinds.embedding import EmbeddingSpec

__all__ = ["linear_head"]

_CLASS = '''
class $class_name(nn.Module):
    """Output head: project the vectors to logits$tying."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if tied
        #if project
        self.project = nn.Linear(D_MODEL, $D_EMBEDDING, bias=False)
        #end
        #elif own_linear
        self.projection = $own_linear
        #else
        self.weight = nn.Parameter(torch.empty(VOCAB_SIZE, D_MODEL).normal_(std=0.02))
        #end
        #if bias
        self.bias = nn.Parameter(torch.zeros(VOCAB_SIZE))
        #end

    #if tied
    def forward(self, x_BTE: Tensor, table_VE: Tensor) -> Tensor:
        """Return the logits, (B, T, E) to (B, T, V), with the table of the embedding as matrix."""
    #else
    def forward(self, x_BTE: Tensor) -> Tensor:
        """Return the logits, (B, T, E) to (B, T, V)."""
    #end
        #if finished
        logits_BTV = $product
        #if softcap
        return $softcapped
        #else
        return $scaled
        #end
        #else
        return $product
        #end
'''


_FIELDS = (
    *("tied", "bias", "scale", "linear", "z_loss", "label_smoothing"),
    *("softcap", "softcap_form", "softcap_shift", "softcap_width"),
)


def linear_head(spec: LinearHeadSpec, context: WritingContext, embedding: EmbeddingSpec) -> Written:
    """Return the head: a linear layer, the table of the embedding, or a class."""
    d_embedding = getattr(embedding, "d_embedding", None) or context.d_model
    project = spec.tied and d_embedding != context.d_model
    plain = spec.scale == 1 and spec.softcap is None
    if plain and not spec.tied and spec.linear is None:
        expression = f"nn.Linear(D_MODEL, VOCAB_SIZE{'' if spec.bias else ', bias=False'})"
        return Written("Head", expression=expression, calls={"logits": "self.head($x)"}, fields=_FIELDS)
    if plain and spec.tied and not project and not spec.bias:
        # Without parameters, so there is nothing to construct.
        return Written("Head", calls={"logits": "F.linear($x, self.embedding.table.weight)"}, fields=_FIELDS)
    settings: dict[str, Setting] = {}
    scaled = "logits_BTV"
    if spec.scale != 1:
        settings["LOGIT_SCALE"] = Setting(spec.scale, "factor of the logits")
        scaled = "$LOGIT_SCALE * logits_BTV"
    if spec.softcap is not None:
        settings["LOGIT_SOFTCAP"] = Setting(spec.softcap, "soft bound of the logits")
        if spec.softcap_divisor != spec.softcap:
            settings["LOGIT_WIDTH"] = Setting(spec.softcap_divisor, "divisor of the logits before their bound")
        if spec.softcap_shift:
            settings["LOGIT_SHIFT"] = Setting(spec.softcap_shift, "added to the logits before their bound")
        scaled = f"({scaled})" if spec.scale != 1 else scaled
    if project:
        settings["D_EMBEDDING"] = Setting(d_embedding, "width of the table")
    matrix = "table_VE" if spec.tied else "self.weight"
    arguments = ["self.project(x_BTE)" if project else "x_BTE", matrix, *(["self.bias"] if spec.bias else [])]
    own_linear = ""
    product = f"F.linear({', '.join(arguments)})"
    if spec.linear is not None:
        call = written(spec.linear, context).call("construct", d_in="D_MODEL", d_out="VOCAB_SIZE", bias=", bias=False")
        own_linear, product = call, "self.projection(x_BTE)" + (" + self.bias" if spec.bias else "")
    text = fill(
        _CLASS,
        own_linear=own_linear,
        tying="; the matrix is the table of the embedding" if spec.tied else "",
        tied=spec.tied,
        project=project,
        bias=spec.bias,
        finished=not plain,
        softcap=spec.softcap is not None,
        softcapped=softcapped(
            spec, scaled, "$LOGIT_SOFTCAP", "$LOGIT_WIDTH" if "LOGIT_WIDTH" in settings else "$LOGIT_SOFTCAP", "$LOGIT_SHIFT"
        ),
        product=product,
        scaled=scaled,
    )
    if spec.tied and not project and not spec.bias:
        # Without a constructor of its own.
        first, last = text.index("    def __init__"), text.index("    def forward")
        text = text[:first] + text[last:]
    call = "self.head($x, self.embedding.table.weight)" if spec.tied else "self.head($x)"
    return Written("Head", text, settings=settings, calls={"logits": call}, section="model", fields=_FIELDS)


def softcapped(spec: LinearHeadSpec, logits: str, cap: str, width: str, shift: str) -> str:
    """Return the expression of the bounded logits."""
    u = f"({logits} + {shift}) / {width}" if spec.softcap_shift else f"{logits} / {width}"
    if spec.softcap_form == "rational":
        return f"{cap} * ({u}) * torch.rsqrt(1 + ({u}).square())"
    return f"{cap} * torch.{spec.softcap_form}({u})"
