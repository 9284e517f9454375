"""Templates of `short-conv`, `mamba2` and `gated-delta`, the latter two as recurrences over tokens.

The built modules compute chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.gated_delta import GatedDeltaSpec
    from gptkit.components.attention.mamba2 import Mamba2Spec
    from gptkit.components.attention.short_conv import ShortConvSpec

__all__ = ["convolved", "gated_delta", "mamba2", "short_conv"]

_CONVOLVED = '''
def $class_name(x_BTC: Tensor, conv: nn.Conv1d, cache: dict[str, Tensor]) -> Tensor:
    """Convolve each feature with its preceding values, (B, T, C) to (B, T, C)."""
    n_kept = conv.kernel_size[0] - 1
    start_BTC = cache.get("inputs", x_BTC.new_zeros(x_BTC.shape[0], n_kept, x_BTC.shape[2]))
    x_BSC = torch.cat((start_BTC, x_BTC), dim=1)
    cache["inputs"] = x_BSC[:, x_BSC.shape[1] - n_kept :]
    return conv(x_BSC.transpose(1, 2)).transpose(1, 2)
'''

_MAMBA2 = '''
class $class_name(nn.Module):
    """Mamba-2: a recurrent state of fixed size for each head, with a decay.

    S = exp(-exp(decay_log) Δ) S + (Δ v) kᵀ, y = S q + skip v; v, k, q are x, B, C of the paper.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_conv = $N_STATE_HEADS * $D_STATE_HEAD + 2 * $N_STATE_GROUPS * $D_STATE
        self.input = $input
        self.conv = nn.Conv1d(d_conv, d_conv, $CONV_WIDTH, groups=d_conv$no_conv_bias)
        self.decay_log = nn.Parameter(torch.zeros($N_STATE_HEADS))
        self.step_bias = nn.Parameter(torch.zeros($N_STATE_HEADS))
        self.skip = nn.Parameter(torch.ones($N_STATE_HEADS))
        #if normed
        self.norm_weight = nn.Parameter(torch.ones($N_STATE_HEADS * $D_STATE_HEAD))
        #end
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        d_values, d_keys = $N_STATE_HEADS * $D_STATE_HEAD, $N_STATE_GROUPS * $D_STATE
        widths = (d_values, d_values + 2 * d_keys, $N_STATE_HEADS)
        gate_BTX, u_BTC, step_BTH = self.input(x_BTE).split(widths, dim=-1)
        #if scales
        scales = ((d_values, $value_scale), (d_keys, $key_scale), (d_keys, $query_scale))
        u_BTC = u_BTC * torch.cat([u_BTC.new_full((width,), scale) for width, scale in scales])
        gate_BTX, step_BTH = $gate_scale * gate_BTX, $step_scale * step_BTH
        #end
        mixed_BTC = $activated
        v_BTX, k_BTX, q_BTX = torch.split(mixed_BTC, [d_values, d_keys, d_keys], dim=-1)
        v_BTHD = v_BTX.reshape(*v_BTX.shape[:2], $N_STATE_HEADS, -1)
        repeats = $N_STATE_HEADS // $N_STATE_GROUPS  # heads of a group have the same k and q
        k_BTHN, q_BTHN = (
            x.reshape(*x.shape[:2], $N_STATE_GROUPS, -1).repeat_interleave(repeats, dim=2)
            for x in (k_BTX, q_BTX)
        )
        step_BTH = F.softplus(step_BTH + self.step_bias)
        #if limited
        step_BTH = step_BTH.clamp($limits)
        #end
        decay_BTH = torch.exp(-self.decay_log.exp() * step_BTH)
        empty_BHDN = v_BTHD.new_zeros(len(x_BTE), $N_STATE_HEADS, $D_STATE_HEAD, $D_STATE)
        state_BHDN = cache.get("state", empty_BHDN)
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            added_BHD = step_BTH[:, t, :, None] * v_BTHD[:, t]
            state_BHDN = decay_BTH[:, t, :, None, None] * state_BHDN
            state_BHDN = state_BHDN + added_BHD[..., None] * k_BTHN[:, t, :, None]
            outputs.append((state_BHDN @ q_BTHN[:, t, :, :, None])[..., 0])
        cache["state"] = state_BHDN
        y_BTHD = torch.stack(outputs, dim=1) + self.skip[:, None] * v_BTHD
        y_BTX = y_BTHD.flatten(2)
        #if not normed
        return self.output(y_BTX * F.silu(gate_BTX))
        #elif before
        return self.output(self.normalized(y_BTX) * F.silu(gate_BTX))
        #else
        return self.output(self.normalized(y_BTX * F.silu(gate_BTX)))
        #end
    #if normed

    def normalized(self, x_BTX: Tensor) -> Tensor:
        """Normalize by the root mean square of groups of features, (B, T, X) to (B, T, X)."""
        grouped = x_BTX.reshape(*x_BTX.shape[:2], $norm_groups, -1)
        mean_square = grouped.square().mean(dim=-1, keepdim=True)
        return (grouped * torch.rsqrt(mean_square + $STATE_NORM_EPS)).flatten(2) * self.norm_weight
    #end
'''

_GATED_DELTA = '''
class $class_name(nn.Module):
    """Gated delta rule: a recurrent state of fixed size for each head, corrected by each token.

    S = decay S + k β (v - k S), y = q S: the state learns to return v for k.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_keys, d_values = $N_STATE_HEADS * $D_STATE_KEY, $N_VALUE_HEADS * $D_STATE_VALUE
        d_conv = 2 * d_keys + d_values
        self.qkvz = $packed
        self.rates = nn.Linear(D_MODEL, 2 * $N_VALUE_HEADS, bias=False)
        self.conv = nn.Conv1d(d_conv, d_conv, $CONV_WIDTH, groups=d_conv, bias=False)
        self.decay_log = nn.Parameter(torch.zeros($N_VALUE_HEADS))
        self.decay_bias = nn.Parameter(torch.zeros($N_VALUE_HEADS))
        self.norm = $norm
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        d_keys, d_values = $N_STATE_HEADS * $D_STATE_KEY, $N_VALUE_HEADS * $D_STATE_VALUE
        u_BTC, gate_BTX = self.qkvz(x_BTE).split((2 * d_keys + d_values, d_values), dim=-1)
        mixed_BTC = F.silu($convolved(u_BTC, self.conv, cache))
        q_BTX, k_BTX, v_BTX = torch.split(mixed_BTC, [d_keys, d_keys, d_values], dim=-1)
        q_BTHK, k_BTHK = (self.unit_heads(x) for x in (q_BTX, k_BTX))
        q_BTHK = q_BTHK * $D_STATE_KEY**-0.5
        v_BTHV = v_BTX.reshape(*v_BTX.shape[:2], $N_VALUE_HEADS, -1)
        rate_BTH, decay_BTH = self.rates(x_BTE).chunk(2, dim=-1)
        decay_BTH = torch.exp(-self.decay_log.exp() * F.softplus(decay_BTH + self.decay_bias))
        empty_BHKV = v_BTHV.new_zeros(len(x_BTE), $N_VALUE_HEADS, $D_STATE_KEY, $D_STATE_VALUE)
        state_BHKV = cache.get("state", empty_BHKV)
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            q_BH1K, k_BHK1 = q_BTHK[:, t, :, None], k_BTHK[:, t, :, :, None]
            state_BHKV = decay_BTH[:, t, :, None, None] * state_BHKV
            error_BHV = v_BTHV[:, t] - (k_BHK1 * state_BHKV).sum(dim=2)
            #if negative
            added_BHV = 2 * rate_BTH[:, t, :, None].sigmoid() * error_BHV
            #else
            added_BHV = rate_BTH[:, t, :, None].sigmoid() * error_BHV
            #end
            state_BHKV = state_BHKV + k_BHK1 * added_BHV[:, :, None]
            outputs.append((q_BH1K @ state_BHKV)[:, :, 0])
        cache["state"] = state_BHKV
        y_BTHV = self.norm(torch.stack(outputs, dim=1))
        return self.output(y_BTHV.flatten(2) * F.silu(gate_BTX))

    def unit_heads(self, x_BTX: Tensor) -> Tensor:
        """Split into heads, normalize each to length 1, and repeat them for the value heads."""
        x_BTHK = x_BTX.reshape(*x_BTX.shape[:2], $N_STATE_HEADS, -1)
        # 1e-6: no division by 0.
        x_BTHK = x_BTHK * torch.rsqrt(x_BTHK.square().sum(dim=-1, keepdim=True) + 1e-6)
        return x_BTHK.repeat_interleave($N_VALUE_HEADS // $N_STATE_HEADS, dim=2)
'''

_SHORT_CONV = '''
class $class_name(nn.Module):
    """Gated convolution over a few tokens: y = W_out (c ⊙ conv(b ⊙ u)), with b, c, u = W_in x."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.input = $input
        self.conv = nn.Conv1d(D_MODEL, D_MODEL, $CONV_WIDTH, groups=D_MODEL$no_conv_bias)
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the preceding ones, (B, T, E) to (B, T, E)."""
        before_BTE, after_BTE, u_BTE = self.input(x_BTE).chunk(3, dim=-1)
        return self.output(after_BTE * $convolved(before_BTE * u_BTE, self.conv, cache))
'''

_MAMBA2_FIELDS = (
    "n_heads",
    "d_head",
    "n_groups",
    "d_state",
    "conv_width",
    "conv_bias",
    "bias",
    "activation",
    "projection_scales",
    "step_min",
    "step_max",
    "norm",
    "norm_groups",
    "eps",
)
_SCALES = ("gate_scale", "value_scale", "key_scale", "query_scale", "step_scale")
_DELTA_FIELDS = ("n_heads", "n_value_heads", "d_key", "d_value", "conv_width", "negative_eigenvalues", "norm")

convolved = Written("convolved", fill(_CONVOLVED), section="attention")
"""The function of the convolution before the heads."""


def mamba2(spec: Mamba2Spec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    limited = (spec.step_min, spec.step_max) != (0, None)
    limits = f"min={spec.step_min!r}" + ("" if spec.step_max is None else f", max={spec.step_max!r}")
    activation = written(spec.activation, context)
    parts = {"convolved": convolved}
    if activation.text or activation.expression:
        parts["activation"] = activation
    settings = {
        "N_STATE_HEADS": Setting(spec.n_heads, "heads of the recurrent layers"),
        "D_STATE_HEAD": Setting(spec.d_head, "features of a value of a recurrent layer"),
        "N_STATE_GROUPS": Setting(spec.n_groups, "groups of heads with the same keys and queries"),
        "D_STATE": Setting(spec.d_state, "features of a key of a recurrent layer"),
        "CONV_WIDTH": Setting(spec.conv_width, "tokens of the convolution"),
    }
    if spec.norm != "none":
        settings["STATE_NORM_EPS"] = Setting(spec.eps, "added to the mean square")
    d_values = "$N_STATE_HEADS * $D_STATE_HEAD"
    scales = spec.projection_scales
    text = fill(
        _MAMBA2,
        input=linear(context, "D_MODEL", f"{d_values} + d_conv + $N_STATE_HEADS", bias=spec.bias),
        projection=linear(context, d_values, "D_MODEL", bias=spec.bias),
        no_conv_bias="" if spec.conv_bias else ", bias=False",
        activated=activation.call("apply", x="$convolved(u_BTC, self.conv, cache)"),
        limited=limited,
        limits=limits,
        scales=scales is not None,
        **dict(zip(_SCALES, scales or [""] * 5, strict=True)),
        normed=spec.norm != "none",
        before=spec.norm == "before",
        norm_groups=spec.norm_groups,
    )
    if "activation" in parts and not activation.is_function:
        text = text.replace("        self.output =", "        self.activation = $activation\n        self.output =", 1)
    return Written(
        "StateSpace", text, settings=settings, parts=parts, section="attention", variant="mamba2", fields=_MAMBA2_FIELDS
    )


def gated_delta(spec: GatedDeltaSpec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    settings = {
        "N_STATE_HEADS": Setting(spec.n_heads, "heads of keys of the recurrent layers"),
        "N_VALUE_HEADS": Setting(spec.n_value_heads, "heads of values of the recurrent layers"),
        "D_STATE_KEY": Setting(spec.d_key, "features of a key of a recurrent layer"),
        "D_STATE_VALUE": Setting(spec.d_value, "features of a value of a recurrent layer"),
        "CONV_WIDTH": Setting(spec.conv_width, "tokens of the convolution"),
    }
    text = fill(
        _GATED_DELTA,
        packed=linear(context, "D_MODEL", "d_conv + d_values", bias=False),
        projection=linear(context, "d_values", "D_MODEL", bias=False),
        negative=spec.negative_eigenvalues,
    )
    parts = {"convolved": convolved, "norm": written(spec.norm, context, dim=Name("$D_STATE_VALUE"))}
    return Written("GatedDelta", text, settings=settings, parts=parts, section="attention", fields=_DELTA_FIELDS)


def short_conv(spec: ShortConvSpec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    text = fill(
        _SHORT_CONV,
        input=linear(context, "D_MODEL", "3 * D_MODEL", bias=spec.bias),
        projection=linear(context, "D_MODEL", "D_MODEL", bias=spec.bias),
        no_conv_bias="" if spec.bias else ", bias=False",
    )
    settings = {"CONV_WIDTH": Setting(spec.width, "tokens of the convolution")}
    parts = {"convolved": convolved}
    return Written("ShortConvolution", text, settings=settings, parts=parts, section="attention", fields=["width", "bias"])
