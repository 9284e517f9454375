"""Template of `convolutional`."""

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
    from gptkit.components.attention.convolutional import ConvolutionalSpec

__all__ = ["convolutional"]

_CONVOLVED = '''
def $class_name(x_BTC: Tensor, first: nn.Conv1d, conv: nn.Conv1d, cache: dict[str, Tensor]) -> Tensor:
    """Convolve twice over tokens, (B, T, C) to (B, T, C), with zeros before a text."""
    n_kept = first.kernel_size[0] + conv.kernel_size[0] - 2
    start_BTC = cache.get("inputs", x_BTC.new_zeros(x_BTC.shape[0], n_kept, x_BTC.shape[2]))
    x_BSC = torch.cat((start_BTC, x_BTC), dim=1)
    cache["inputs"] = x_BSC[:, x_BSC.shape[1] - n_kept :]
    return conv(first(x_BSC.transpose(1, 2))).transpose(1, 2)
'''

_CLASS = '''
class $class_name(nn.Module):
    """Attention in few heads, whose queries and keys are convolved over tokens.

    Means of queries and keys are added to them; half of the values are those of the previous token.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_queries, d_keys = $N_HEADS * $D_HEAD, $N_KV_HEADS * $D_HEAD
        self.sizes = [d_queries + d_keys, d_keys // 2]
        self.qkv = $packed
        self.previous_value = $previous
        d_conv, n_conv = d_queries + d_keys, $N_HEADS + $N_KV_HEADS
        self.feature_conv = nn.Conv1d(d_conv, d_conv, $FEATURE_WIDTH, groups=d_conv)
        self.head_conv = nn.Conv1d(d_conv, d_conv, $HEAD_WIDTH, groups=n_conv)
        self.q_norm = $q_norm
        self.k_norm = $k_norm
        self.key_scale = nn.Parameter(torch.ones($N_KV_HEADS))
        self.output = $projection
        #if position
        self.position = $position
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        last_B1E = cache.get("last_token", x_BTE.new_zeros(len(x_BTE), 1, D_MODEL))
        previous_BTE = torch.cat((last_B1E, x_BTE[:, :-1]), dim=1)
        cache["last_token"] = x_BTE[:, -1:]
        qk_BTC, v_BTX = self.qkv(x_BTE).split(self.sizes, dim=-1)
        mixed_BTC = $twice_convolved(qk_BTC, self.feature_conv, self.head_conv, cache)
        heads = [$N_HEADS, $N_KV_HEADS]
        q_BTHD, k_BTHD = torch.split(torch.unflatten(qk_BTC, -1, (-1, $D_HEAD)), heads, dim=2)
        mean_BTKGD = (torch.unflatten(q_BTHD, 2, ($N_KV_HEADS, -1)) + k_BTHD[:, :, :, None]) / 2
        mixed_q, mixed_k = torch.split(torch.unflatten(mixed_BTC, -1, (-1, $D_HEAD)), heads, dim=2)
        q_BHTD = self.q_norm(mixed_q + mean_BTKGD.flatten(2, 3)).transpose(1, 2)
        k_BTHD = self.k_norm(mixed_k + mean_BTKGD.mean(dim=3)) * self.key_scale[:, None]
        k_BHTD = k_BTHD.transpose(1, 2)
        v_BTX = torch.cat((v_BTX, self.previous_value(previous_BTE)), dim=-1)
        v_BHTD = torch.unflatten(v_BTX, -1, (-1, $D_HEAD)).transpose(1, 2)
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

_END = """
        return self.output(y_BHTD.transpose(1, 2).flatten(2))
"""

_FIELDS = (
    "n_heads",
    "n_kv_heads",
    "d_head",
    "feature_width",
    "head_width",
    "norm",
    "qkv_bias",
    "output_bias",
    "dropout",
    "sliding_window",
    "scale",
)

twice_convolved = Written("twice_convolved", fill(_CONVOLVED), section="attention")
"""The function of both convolutions."""


def convolutional(spec: ConvolutionalSpec, context: WritingContext) -> Written:
    """Return the attention as a class."""
    heads = spec.head_shape()
    position = common_position(spec, context, heads, together=True)
    mask, mask_call, settings = causal_mask(context, spec.window, None)
    norm = written(spec.norm, context, dim=Name("$D_HEAD"))
    parts = {"causal_mask": mask, "append_to": append_to, "twice_convolved": twice_convolved, "q_norm": norm, "k_norm": norm}
    calls = position_calls(position)
    if position is not None:
        parts |= position_parts(position)
    settings |= {
        "N_HEADS": Setting(heads.n_heads, "heads of the queries"),
        "N_KV_HEADS": Setting(heads.n_kv_heads, "heads of keys and values, shared by several query heads"),
        "D_HEAD": Setting(heads.d_head, "features of a head"),
        "FEATURE_WIDTH": Setting(spec.feature_width, "tokens of the convolution of each feature"),
        "HEAD_WIDTH": Setting(spec.head_width, "tokens of the convolution of each head's features"),
    }
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    if spec.scale is not None:
        settings["ATTENTION_SCALE"] = Setting(spec.scale, "factor of the dot products")
    text = fill(
        _CLASS,
        packed=linear(context, "D_MODEL", "sum(self.sizes)", bias=spec.qkv_bias),
        previous=linear(context, "D_MODEL", "d_keys // 2", bias=spec.qkv_bias),
        projection=linear(context, "d_queries", "D_MODEL", bias=spec.output_bias),
        position="position" in parts,
        mask=mask_call,
        **calls,
    )
    scale = "" if spec.scale is None else "$ATTENTION_SCALE"
    repeats = heads.n_heads != heads.n_kv_heads
    text += attend(position, scale=scale, repeats=repeats, dropout=spec.dropout) + fill(_END)
    return Written(
        "Attention", text, settings=settings, parts=parts, section="attention", variant="Convolutional", fields=_FIELDS
    )
