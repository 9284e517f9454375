"""Template of `rwkv4`, as a recurrence over tokens.

The built module computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear

if TYPE_CHECKING:
    from gptkit.components.attention.rwkv4 import Rwkv4Spec

__all__ = ["rwkv4"]

_CLASS = '''
class $class_name(nn.Module):
    """Time mixing of RWKV-4: averages of values, with weights exp(k) that decay from token to token.

    y = (a + exp(bonus + k) v) / (b + exp(bonus + k)); then a = exp(-rate) a + exp(k) v and
    b = exp(-rate) b + exp(k), both divided by exp(m).
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(3, D_MODEL))  # shares of the current token
        self.key = $inward
        self.value = $inward
        self.receptance = $inward
        self.decay = nn.Parameter(torch.zeros($D_INNER))
        self.bonus = nn.Parameter(torch.zeros($D_INNER))
        self.output = $outward

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        last_B1E = cache.get("last_input", x_BTE.new_zeros(len(x_BTE), 1, D_MODEL))
        previous_BTE = torch.cat((last_B1E, x_BTE[:, :-1]), dim=1)
        cache["last_input"] = x_BTE[:, -1:]
        for_k, for_v, for_r = (torch.lerp(previous_BTE, x_BTE, mix_E) for mix_E in self.mix)
        k_BTX, v_BTX = self.key(for_k), self.value(for_v)
        rate_X = self.decay.exp()
        # The state is a, b and m side by side.
        state_BXU = cache.get("state", k_BTX.new_zeros(len(x_BTE), $D_INNER, 3))
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            a_BX, b_BX, m_BX = state_BXU.unbind(dim=-1)
            m_BX = m_BX.masked_fill(b_BX == 0, float("-inf"))  # no token yet
            k_BX, v_BX = k_BTX[:, t], v_BTX[:, t]
            most_BX = torch.maximum(m_BX, self.bonus + k_BX)
            old_BX, new_BX = torch.exp(m_BX - most_BX), torch.exp(self.bonus + k_BX - most_BX)
            outputs.append((old_BX * a_BX + new_BX * v_BX) / (old_BX * b_BX + new_BX))
            most_BX = torch.maximum(m_BX - rate_X, k_BX)
            old_BX, new_BX = torch.exp(m_BX - rate_X - most_BX), torch.exp(k_BX - most_BX)
            sums = old_BX * a_BX + new_BX * v_BX, old_BX * b_BX + new_BX
            state_BXU = torch.stack((*sums, most_BX), dim=-1)
        cache["state"] = state_BXU
        y_BTX = torch.stack(outputs, dim=1)
        return self.output(torch.sigmoid(self.receptance(for_r)) * y_BTX)
'''


def rwkv4(spec: Rwkv4Spec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    text = fill(
        _CLASS,
        inward=linear(context, "D_MODEL", "$D_INNER", bias=False),
        outward=linear(context, "$D_INNER", "D_MODEL", bias=False),
    )
    settings = {"D_INNER": Setting(spec.d_inner, "features of a recurrent layer")}
    return Written("TimeMixing", text, settings=settings, section="attention", variant="rwkv4", fields=("d_inner",))
