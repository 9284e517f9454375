"""Template of `rg-lru`, as a recurrence over tokens.

The built module computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.recurrent import convolved
from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.rg_lru import RgLruSpec

__all__ = ["rg_lru"]

_CLASS = '''
class $class_name(nn.Module):
    """Real-gated linear recurrent unit: a moving average of each feature, with a decay of its own.

    h = a h + sqrt(1 - a²) i u, with gates i and a that depend on the token.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        block = $D_INNER // $N_BLOCKS
        self.input = $input
        self.conv = nn.Conv1d($D_INNER, $D_INNER, $CONV_WIDTH, groups=$D_INNER)
        self.decay_gate_weight = nn.Parameter(torch.zeros($N_BLOCKS, block, block))
        self.decay_gate_bias = nn.Parameter(torch.zeros($N_BLOCKS, block))
        self.input_gate_weight = nn.Parameter(torch.zeros($N_BLOCKS, block, block))
        self.input_gate_bias = nn.Parameter(torch.zeros($N_BLOCKS, block))
        self.decay = nn.Parameter(torch.zeros($D_INNER))
        #if activation_class
        self.activation = $activation
        #end
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        u_BTX, gate_BTX = self.input(x_BTE).chunk(2, dim=-1)
        v_BTX = $convolved(u_BTX, self.conv, cache)
        decay_gate_BTX = self.gate(v_BTX, self.decay_gate_weight, self.decay_gate_bias)
        input_gate_BTX = self.gate(v_BTX, self.input_gate_weight, self.input_gate_bias)
        log_BTX = -8.0 * decay_gate_BTX * F.softplus(self.decay)
        first = positions_T[:, None] == 0
        decay_BTX = torch.exp(log_BTX).masked_fill(first, 0.0)
        factor_BTX = torch.sqrt(-torch.expm1(2 * log_BTX)).masked_fill(first, 1.0)
        added_BTX = factor_BTX * input_gate_BTX * v_BTX
        state_BX = cache.get("state", torch.zeros_like(added_BTX[:, 0]))
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            state_BX = decay_BTX[:, t] * state_BX + added_BTX[:, t]
            outputs.append(state_BX)
        cache["state"] = state_BX
        return self.output(torch.stack(outputs, dim=1) * $activated)

    def gate(self, v_BTX: Tensor, weight_HPP: Tensor, bias_HP: Tensor) -> Tensor:
        """Return a gate of each feature from the features of its block, (B, T, X) to (B, T, X)."""
        v_BTHP = v_BTX.reshape(*v_BTX.shape[:2], $N_BLOCKS, -1)
        return torch.sigmoid(torch.einsum("bthp,hpq->bthq", v_BTHP, weight_HPP) + bias_HP).flatten(2)
'''

_FIELDS = ("d_inner", "n_heads", "conv_width", "bias", "activation")


def rg_lru(spec: RgLruSpec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    settings = {
        "D_INNER": Setting(spec.d_inner, "features of a recurrent layer"),
        "N_BLOCKS": Setting(spec.n_heads, "blocks of features with gates of their own"),
        "CONV_WIDTH": Setting(spec.conv_width, "tokens of the convolution"),
    }
    activation = written(spec.activation, context)
    parts = {"convolved": convolved}
    if activation.text or activation.expression:
        parts["activation"] = activation
    text = fill(
        _CLASS,
        input=linear(context, "D_MODEL", "2 * $D_INNER", bias=spec.bias),
        projection=linear(context, "$D_INNER", "D_MODEL", bias=spec.bias),
        activated=activation.call("apply", x="gate_BTX"),
        activation_class="activation" in parts and not activation.is_function,
    )
    return Written("RgLru", text, settings=settings, parts=parts, section="attention", fields=_FIELDS)
