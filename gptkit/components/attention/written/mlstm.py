"""Template of `mlstm`, as a recurrence over tokens.

The built module computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear

if TYPE_CHECKING:
    from gptkit.components.attention.mlstm import MLstmSpec

__all__ = ["mlstm"]

_CLASS = '''
class $class_name(nn.Module):
    """mLSTM: a matrix for each head, to which tokens are added with exponential gates.

    C = f C + exp(i) k vᵀ, n = f n + exp(i) k, y = Cᵀ q / max(|n q|, 1); both divided by exp(m).
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_keys, d_values = $N_STATE_HEADS * $D_STATE_KEY, $N_STATE_HEADS * $D_STATE_VALUE
        self.input = $input
        self.gates = nn.Linear(D_MODEL, 2 * $N_STATE_HEADS)
        #if normed
        self.norm_weight = nn.Parameter(torch.ones(d_values))
        #end
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        d_keys, d_values = $N_STATE_HEADS * $D_STATE_KEY, $N_STATE_HEADS * $D_STATE_VALUE
        widths = (d_keys, d_keys, d_values, d_values)
        q_BTX, k_BTX, v_BTX, gate_BTX = self.input(x_BTE).split(widths, dim=-1)
        q_BTHK, k_BTHK, v_BTHV = (
            x.reshape(*x.shape[:2], $N_STATE_HEADS, -1) for x in (q_BTX, k_BTX, v_BTX)
        )
        q_BTHK = q_BTHK * $D_STATE_KEY**-0.5
        gates_BTU = self.gates(x_BTE)
        #if capped
        gates_BTU = $GATE_SOFTCAP * torch.tanh(gates_BTU / $GATE_SOFTCAP)
        #end
        exponent_BTH, forget_BTH = gates_BTU.chunk(2, dim=-1)
        forget_BTH = F.logsigmoid(forget_BTH)
        # The state is C, n and m side by side.
        state_BHKU = q_BTHK.new_zeros(len(x_BTE), $N_STATE_HEADS, $D_STATE_KEY, $D_STATE_VALUE + 2)
        state_BHKU = cache.get("state", state_BHKU)
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            c_BHKV, n_BHK1, m_BHK1 = state_BHKU.split(($D_STATE_VALUE, 1, 1), dim=-1)
            exponent_BH11 = exponent_BTH[:, t, :, None, None]
            decayed_BHK1 = forget_BTH[:, t, :, None, None] + m_BHK1
            m_BHK1 = torch.maximum(decayed_BHK1, exponent_BH11).detach()  # it cancels out
            kept_BHK1 = torch.exp(decayed_BHK1 - m_BHK1)
            k_BHK1 = torch.exp(exponent_BH11 - m_BHK1) * k_BTHK[:, t, :, :, None]
            c_BHKV = kept_BHK1 * c_BHKV + k_BHK1 * v_BTHV[:, t, :, None]
            n_BHK1 = kept_BHK1 * n_BHK1 + k_BHK1
            q_BH1K = q_BTHK[:, t, :, None]
            size_BH11 = torch.maximum((q_BH1K @ n_BHK1).abs(), torch.exp(-m_BHK1[:, :, :1]))
            outputs.append((q_BH1K @ c_BHKV / (size_BH11 + $STATE_EPS))[:, :, 0])
            state_BHKU = torch.cat((c_BHKV, n_BHK1, m_BHK1), dim=-1)
        cache["state"] = state_BHKU
        y_BTHV = torch.stack(outputs, dim=1)
        #if centered
        y_BTHV = y_BTHV - y_BTHV.mean(dim=-1, keepdim=True)
        #end
        #if normed
        mean_square = y_BTHV.square().mean(dim=-1, keepdim=True)
        y_BTHV = y_BTHV * torch.rsqrt(mean_square + $STATE_NORM_EPS)
        y_BTX = y_BTHV.flatten(2) * self.norm_weight
        #else
        y_BTX = y_BTHV.flatten(2)
        #end
        return self.output(torch.sigmoid(gate_BTX) * y_BTX)
'''

_FIELDS = ("n_heads", "d_key", "d_value", "gate_softcap", "norm", "norm_eps", "eps")


def mlstm(spec: MLstmSpec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    settings = {
        "N_STATE_HEADS": Setting(spec.n_heads, "heads of the recurrent layers"),
        "D_STATE_KEY": Setting(spec.d_key, "features of a key of a recurrent layer"),
        "D_STATE_VALUE": Setting(spec.d_value, "features of a value of a recurrent layer"),
        "STATE_EPS": Setting(spec.eps, "added to the denominator"),
    }
    if spec.gate_softcap is not None:
        settings["GATE_SOFTCAP"] = Setting(spec.gate_softcap, "bound of the exponents of gates")
    if spec.norm != "none":
        settings["STATE_NORM_EPS"] = Setting(spec.norm_eps, "added to the mean square")
    text = fill(
        _CLASS,
        input=linear(context, "D_MODEL", "2 * d_keys + 2 * d_values", bias=False),
        projection=linear(context, "d_values", "D_MODEL", bias=False),
        capped=spec.gate_softcap is not None,
        normed=spec.norm != "none",
        centered=spec.norm == "layer",
    )
    return Written("MLstm", text, settings=settings, section="attention", fields=_FIELDS)
