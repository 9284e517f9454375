"""Templates of attention `rwkv7`, as a recurrence over tokens, and of block `token-shift`.

The built attention computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear
from gptkit_research.written.parts import branch_parts, dropped

if TYPE_CHECKING:
    from gptkit_research.rwkv7 import RWKV7Spec
    from gptkit_research.token_shift import TokenShiftSpec

__all__ = ["rwkv7", "token_shift"]

_LOW_RANK = '''
class $class_name(nn.Module):
    """Two matrices with a narrow vector between them."""

    def __init__(self, rank: int, d_out: int, bias: bool = True) -> None:
        super().__init__()
        self.down = $down
        self.up = $up if bias else $up_without_bias
'''

_RWKV7 = '''
class $class_name(nn.Module):
    """Time mixing of RWKV-7: a recurrent state of fixed size for each head.

    S = diag(w) S - (a u) (u S) + k v, y = r S; the decay w, the removal a along u and the addition
    k v depend on the token.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        width = $N_STATE_HEADS * $D_STATE_HEAD
        self.is_first = $IS_FIRST
        self.mix = nn.Parameter(torch.zeros(6, D_MODEL))
        self.receptance = $inward
        self.key = $inward
        self.value = $inward
        self.decay = $low_rank_class($DECAY_RANK, width)
        self.rate = $low_rank_class($RATE_RANK, width)
        if not self.is_first:
            self.value_mix = $low_rank_class($VALUE_RANK, width)
        self.gate = $low_rank_class($GATE_RANK, width, bias=False)
        self.removal_scale = nn.Parameter(torch.ones(width))
        self.key_rate = nn.Parameter(torch.ones(width))
        self.bonus = nn.Parameter(torch.zeros($N_STATE_HEADS, $D_STATE_HEAD))
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.output = $outward

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        last_B1E = cache.get("last_input", x_BTE.new_zeros(len(x_BTE), 1, D_MODEL))
        delta_BTE = torch.cat((last_B1E, x_BTE[:, :-1]), dim=1) - x_BTE
        cache["last_input"] = x_BTE[:, -1:]
        x_r, x_w, x_k, x_v, x_a, x_g = (x_BTE + delta_BTE * mix_E for mix_E in self.mix)
        v_BTX = self.value(x_v)
        if self.is_first:
            # Later layers with values of this width mix these into their own.
            cache.shared["first_values", v_BTX.shape[-1]] = v_BTX
        else:
            first_BTX = cache.shared["first_values", v_BTX.shape[-1]]
            share_BTX = self.value_mix.up(self.value_mix.down(x_v)).sigmoid()
            v_BTX = v_BTX + share_BTX * (first_BTX - v_BTX)
        r_BTHK, k_BTHK, v_BTHV = (self.heads(x) for x in (self.receptance(x_r), self.key(x_k), v_BTX))
        a_BTHK = self.heads(self.rate.up(self.rate.down(x_a)).sigmoid())
        log_decay = self.decay.up(self.decay.down(x_w).tanh()).sigmoid()
        w_BTHK = torch.exp(-math.exp(-0.5) * self.heads(log_decay))
        u_BTHK = F.normalize(k_BTHK * self.removal_scale.view_as(self.bonus), dim=-1)
        k_BTHK = k_BTHK * (1 + (a_BTHK - 1) * self.key_rate.view_as(self.bonus))
        empty_BHKV = x_BTE.new_zeros(len(x_BTE), $N_STATE_HEADS, $D_STATE_HEAD, $D_STATE_HEAD)
        state_BHKV = cache.get("state", empty_BHKV)
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            w_BHK1, u_BHK1, k_BHK1, a_BHK1 = (x[:, t, :, :, None] for x in (w_BTHK, u_BTHK, k_BTHK, a_BTHK))
            read_BH1V = (u_BHK1 * state_BHKV).sum(dim=2, keepdim=True)
            state_BHKV = w_BHK1 * state_BHKV - a_BHK1 * u_BHK1 * read_BH1V
            state_BHKV = state_BHKV + k_BHK1 * v_BTHV[:, t, :, None]
            outputs.append((r_BTHK[:, t, :, None] @ state_BHKV)[:, :, 0])
        cache["state"] = state_BHKV
        y_BTHV = F.layer_norm(torch.stack(outputs, dim=1), ($D_STATE_HEAD,), eps=$STATE_NORM_EPS)
        y_BTHV = y_BTHV * self.norm_weight.view_as(self.bonus) + self.norm_bias.view_as(self.bonus)
        y_BTHV = y_BTHV + (r_BTHK * k_BTHK * self.bonus).sum(dim=-1, keepdim=True) * v_BTHV
        return self.output(y_BTHV.flatten(2) * self.gate.up(self.gate.down(x_g).sigmoid()))

    def heads(self, x_BTX: Tensor) -> Tensor:
        """Split into heads, (B, T, X) to (B, T, H, D)."""
        return x_BTX.reshape(*x_BTX.shape[:2], $N_STATE_HEADS, $D_STATE_HEAD)
'''

_TOKEN_SHIFT = '''
class $class_name(nn.Module):
    """One layer: attention, then feed-forward on each token mixed with the previous one, after norms."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.attention = $attention
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward
        self.mix = nn.Parameter(torch.zeros(D_MODEL))

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        x_BTE = x_BTE + $mixed
        u_BTE = self.feedforward_norm(x_BTE)
        last_B1E = cache.get("last_normed", torch.zeros_like(u_BTE[:, :1]))
        cache["last_normed"] = u_BTE[:, -1:]
        previous_BTE = torch.cat((last_B1E, u_BTE[:, :-1]), dim=1)
        fed_BTE = self.feedforward(u_BTE + self.mix * (previous_BTE - u_BTE))
        return x_BTE + $fed
'''

_FIELDS = ("n_heads", "d_head", "decay_rank", "rate_rank", "value_rank", "gate_rank", "eps")


def rwkv7(spec: RWKV7Spec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    assert spec.n_heads is not None
    index = context.parts.index
    is_first = context.share(("rwkv7", spec.n_heads * spec.d_head), lambda: index) == index
    settings = {
        "N_STATE_HEADS": Setting(spec.n_heads, "heads of the recurrent layers"),
        "D_STATE_HEAD": Setting(spec.d_head, "features of a head of a recurrent layer"),
        "DECAY_RANK": Setting(spec.decay_rank, "features that decays are projected from"),
        "RATE_RANK": Setting(spec.rate_rank, "features that rates of removal are projected from"),
        "VALUE_RANK": Setting(spec.value_rank, "features that shares of the first layer's values are projected from"),
        "GATE_RANK": Setting(spec.gate_rank, "features that gates are projected from"),
        "STATE_NORM_EPS": Setting(spec.eps * spec.d_head, "added to the variance of a head's output"),
        "IS_FIRST": Setting(is_first, "whether later layers mix the values of this one into their own"),
    }
    low_rank = Written(
        "LowRank",
        fill(
            _LOW_RANK,
            down=linear(context, "D_MODEL", "rank", bias=False),
            up=linear(context, "rank", "d_out", bias=True),
            up_without_bias=linear(context, "rank", "d_out", bias=False),
        ),
        section="attention",
    )
    text = fill(
        _RWKV7,
        inward=linear(context, "D_MODEL", "width", bias=False),
        outward=linear(context, "width", "D_MODEL", bias=False),
    )
    return Written("RWKV7", text, settings=settings, parts={"low_rank": low_rank}, section="attention", fields=_FIELDS)


def token_shift(spec: TokenShiftSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    settings, mixed, fed = dropped(spec.dropout)
    text = fill(_TOKEN_SHIFT, mixed=mixed, fed=fed)
    return Written("Block", text, settings=settings, parts=branch_parts(context), section="block", fields=("dropout",))
