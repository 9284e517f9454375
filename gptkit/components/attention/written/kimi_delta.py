"""Template of `kimi-delta`, as a recurrence over tokens.

The built module computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.recurrent import convolved
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.kimi_delta import KimiDeltaSpec

__all__ = ["kimi_delta"]

_CLASS = '''
class $class_name(nn.Module):
    """Kimi delta attention: a recurrent state of fixed size for each head, corrected by each token.

    S = diag(decay) S + k β (v - k S), y = q S: each feature of a key has its own decay.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_keys, d_values = $N_STATE_HEADS * $D_STATE_KEY, $N_STATE_HEADS * $D_STATE_VALUE
        self.sizes = [d_keys, d_keys, d_values]
        d_conv = sum(self.sizes)
        self.qkv = $packed
        #if decay_rank
        self.decay_down = $decay_down
        #end
        self.decay = $decay
        #if gate_rank
        self.gate_down = $gate_down
        #end
        self.gate = $gate
        self.strength = nn.Linear(D_MODEL, $N_STATE_HEADS, bias=False)
        self.conv = nn.Conv1d(d_conv, d_conv, $CONV_WIDTH, groups=d_conv, bias=False)
        self.decay_log = nn.Parameter(torch.zeros($N_STATE_HEADS))
        self.decay_bias = nn.Parameter(torch.zeros(d_keys))
        self.norm = $norm
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        mixed_BTC = F.silu($convolved(self.qkv(x_BTE), self.conv, cache))
        q_BTHK, k_BTHK, v_BTHV = (
            x.reshape(*x.shape[:2], $N_STATE_HEADS, -1)
            for x in torch.split(mixed_BTC, self.sizes, dim=-1)
        )
        # 1e-6: no division by 0.
        q_BTHK, k_BTHK = (
            x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6) for x in (q_BTHK, k_BTHK)
        )
        #if decay_rank
        rate_BTHK = (self.decay(self.decay_down(x_BTE)) + self.decay_bias).view_as(k_BTHK)
        #else
        rate_BTHK = (self.decay(x_BTE) + self.decay_bias).view_as(k_BTHK)
        #end
        #if floor
        decay_BTHK = torch.exp($DECAY_FLOOR * (self.decay_log.exp()[:, None] * rate_BTHK).sigmoid())
        #else
        decay_BTHK = torch.exp(-self.decay_log.exp()[:, None] * F.softplus(rate_BTHK))
        #end
        strength_BTH = torch.sigmoid(self.strength(x_BTE))
        empty_BHKV = v_BTHV.new_zeros(len(x_BTE), $N_STATE_HEADS, $D_STATE_KEY, $D_STATE_VALUE)
        state_BHKV = cache.get("state", empty_BHKV)
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            q_BH1K, k_BHK1 = q_BTHK[:, t, :, None], k_BTHK[:, t, :, :, None]
            state_BHKV = decay_BTHK[:, t, :, :, None] * state_BHKV
            error_BHV = v_BTHV[:, t] - (k_BHK1 * state_BHKV).sum(dim=2)
            state_BHKV = state_BHKV + k_BHK1 * (strength_BTH[:, t, :, None] * error_BHV)[:, :, None]
            outputs.append((q_BH1K @ state_BHKV)[:, :, 0])
        cache["state"] = state_BHKV
        y_BTHV = self.norm(torch.stack(outputs, dim=1) * $D_STATE_KEY**-0.5)
        #if gate_rank
        return self.output(y_BTHV.flatten(2) * self.gate(self.gate_down(x_BTE)).sigmoid())
        #else
        return self.output(y_BTHV.flatten(2) * self.gate(x_BTE).sigmoid())
        #end
'''

_FIELDS = ("n_heads", "d_key", "d_value", "conv_width", "decay_rank", "gate_rank", "decay_floor", "norm")


def kimi_delta(spec: KimiDeltaSpec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    settings = {
        "N_STATE_HEADS": Setting(spec.n_heads, "heads of the recurrent layers"),
        "D_STATE_KEY": Setting(spec.d_key, "features of a key of a recurrent layer"),
        "D_STATE_VALUE": Setting(spec.d_value, "features of a value of a recurrent layer"),
        "CONV_WIDTH": Setting(spec.conv_width, "tokens of the convolution"),
    }
    for name, value, comment in (
        ("DECAY_RANK", spec.decay_rank, "features that decays are projected from"),
        ("GATE_RANK", spec.gate_rank, "features that gates of a recurrent layer are projected from"),
        ("DECAY_FLOOR", spec.decay_floor, "lower bound of the logarithm of a decay"),
    ):
        if value is not None:
            settings[name] = Setting(value, comment)
    decay_rank, gate_rank = spec.decay_rank is not None, spec.gate_rank is not None
    text = fill(
        _CLASS,
        decay_rank=decay_rank,
        gate_rank=gate_rank,
        floor=spec.decay_floor is not None,
        packed=linear(context, "D_MODEL", "d_conv", bias=False),
        decay_down=linear(context, "D_MODEL", "$DECAY_RANK", bias=False),
        decay=linear(context, "$DECAY_RANK" if decay_rank else "D_MODEL", "d_keys", bias=False),
        gate_down=linear(context, "D_MODEL", "$GATE_RANK", bias=False),
        gate=linear(context, "$GATE_RANK" if gate_rank else "D_MODEL", "d_values", bias=False),
        projection=linear(context, "d_values", "D_MODEL", bias=False),
    )
    parts = {"convolved": convolved, "norm": written(spec.norm, context, dim=Name("$D_STATE_VALUE"))}
    return Written("KimiDelta", text, settings=settings, parts=parts, section="attention", fields=_FIELDS)
