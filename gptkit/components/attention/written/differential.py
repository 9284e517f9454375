"""Template of `differential`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import (
    append_to,
    attend,
    causal_mask,
    common_position,
    position_calls,
    position_parts,
)
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.differential import DifferentialSpec

__all__ = ["differential"]

_START = '''
class $class_name(nn.Module):
    """Differential attention: each head subtracts one softmax map from another.

    head = (softmax(q1 k1ᵀ · scale + mask) - λ softmax(q2 k2ᵀ · scale + mask)) v
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_heads, d_keys = 2 * $N_HEADS * $D_HEAD, 2 * $N_KV_HEADS * $D_HEAD
        self.sizes = [d_heads, d_keys, d_keys]
        self.qkv = $packed
        #if position
        self.position = $position
        #end
        self.norm = $norm
        self.output = $projection
        self.lambda_q1 = nn.Parameter(0.1 * torch.randn($D_HEAD))
        self.lambda_k1 = nn.Parameter(0.1 * torch.randn($D_HEAD))
        self.lambda_q2 = nn.Parameter(0.1 * torch.randn($D_HEAD))
        self.lambda_k2 = nn.Parameter(0.1 * torch.randn($D_HEAD))

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        q_BTX, k_BTX, v_BTX = self.qkv(x_BTE).split(self.sizes, dim=-1)
        # First queries of the heads that share keys, then second ones: each group has one key.
        q_parts = q_BTX.unflatten(-1, ($N_KV_HEADS, -1, 2, $D_HEAD)).transpose(3, 4)
        q_BHTD = q_parts.flatten(2, 4).transpose(1, 2)
        k_BHTD = k_BTX.unflatten(-1, (-1, $D_HEAD)).transpose(1, 2)
        v_BHTD = v_BTX.unflatten(-1, (-1, 2 * $D_HEAD)).transpose(1, 2)
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
        v_BHSD = v_BHSD.repeat_interleave(2, dim=1)  # for both maps
        mask_TS = $mask
'''

_END = """
        first, second = torch.unflatten(y_BHTD, 1, ($N_KV_HEADS, 2, -1)).unbind(2)
        factor = torch.exp((self.lambda_q1 * self.lambda_k1).sum())
        factor = factor - torch.exp((self.lambda_q2 * self.lambda_k2).sum()) + $LAMBDA_INIT
        y_BHTD = (first - factor * second).flatten(1, 2)
        y_BHTD = self.norm(y_BHTD) * (1 - $LAMBDA_INIT)
        return self.output(y_BHTD.transpose(1, 2).flatten(2))
"""

_FIELDS = (
    *("n_heads", "n_kv_heads", "d_head", "qkv_bias", "output_bias"),
    *("dropout", "window", "norm", "lambda_init"),
)


def differential(spec: DifferentialSpec, context: WritingContext) -> Written:
    """Return the attention as a class."""
    position = common_position(spec, context, spec.head_shape(), together=True)
    mask, mask_call, settings = causal_mask(context, spec.window, None)
    parts = {"causal_mask": mask, "append_to": append_to, "norm": written(spec.norm, context, dim=Name("2 * $D_HEAD"))}
    calls = position_calls(position)
    if position is not None:
        parts |= position_parts(position)
    settings |= {
        "N_HEADS": Setting(spec.n_heads, "heads, each with two queries"),
        "N_KV_HEADS": Setting(spec.n_kv_heads, "heads of keys and values, each with two keys"),
        "D_HEAD": Setting(spec.d_head, "features of a query and of a key"),
        "LAMBDA_INIT": Setting(spec.start(context.parts.index), "λ without its learned part"),
    }
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    text = fill(
        _START,
        packed=linear(context, "D_MODEL", "d_heads + 2 * d_keys", bias=spec.qkv_bias),
        projection=linear(context, "d_heads", "D_MODEL", bias=spec.output_bias),
        position="position" in parts,
        mask=mask_call,
        **calls,
    )
    repeats = spec.n_kv_heads != spec.n_heads
    text += attend(position, scale="", repeats=repeats, dropout=spec.dropout) + fill(_END)
    return Written(
        "Attention", text, settings=settings, parts=parts, section="attention", variant="Differential", fields=_FIELDS
    )
