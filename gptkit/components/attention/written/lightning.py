"""Template of `lightning`, as a recurrence over tokens.

The built module computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.lightning import LightningSpec

__all__ = ["lightning"]

_CLASS = '''
class $class_name(nn.Module):
    """Lightning attention: a recurrent state of fixed size for each head, with a constant decay.

    S = exp(-slope) S + k vᵀ, y = q S: linear attention, in which earlier tokens fade.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_heads = $N_STATE_HEADS * $D_STATE_HEAD
        slope = 2.0 ** (-8 / $N_STATE_HEADS)
        #if slower
        factor = 1 - $LAYER / (N_LAYERS - 1 + 1e-5) + 1e-5  # later layers decay more slowly
        self.slopes = [factor * slope ** (head + 1) for head in range($N_STATE_HEADS)]
        #else
        self.slopes = [slope ** (head + 1) for head in range($N_STATE_HEADS)]
        #end
        self.qkv = $packed
        #if activation_class
        self.activation = $activation
        #end
        self.norm = $norm
        #if gate
        self.gate = $gate_projection
        #end
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        packed_BTX = $activated
        q_BTHK, k_BTHK, v_BTHV = (
            x.reshape(*x.shape[:2], $N_STATE_HEADS, -1) for x in packed_BTX.chunk(3, dim=-1)
        )
        decay_H11 = torch.exp(-v_BTHV.new_tensor(self.slopes))[:, None, None]
        empty_BHKV = v_BTHV.new_zeros(len(x_BTE), $N_STATE_HEADS, $D_STATE_HEAD, $D_STATE_HEAD)
        state_BHKV = cache.get("state", empty_BHKV)
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            added_BHKV = k_BTHK[:, t, :, :, None] * v_BTHV[:, t, :, None]
            state_BHKV = decay_H11 * state_BHKV + added_BHKV
            outputs.append((q_BTHK[:, t, :, None] @ state_BHKV)[:, :, 0])
        cache["state"] = state_BHKV
        y_BTX = self.norm(torch.stack(outputs, dim=1).flatten(2))
        #if gate
        return self.output(self.gate(x_BTE).sigmoid() * y_BTX)
        #else
        return self.output(y_BTX)
        #end
'''

_FIELDS = ("n_heads", "d_head", "activation", "slower_in_later_layers", "norm", "output_gate")


def lightning(spec: LightningSpec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    settings = {
        "N_STATE_HEADS": Setting(spec.n_heads, "heads of the recurrent layers"),
        "D_STATE_HEAD": Setting(spec.d_head, "features of a value of a recurrent layer"),
    }
    if spec.slower_in_later_layers:
        settings["LAYER"] = Setting(context.parts.index, "index of the layer")
    activation = written(spec.activation, context)
    parts = {"norm": written(spec.norm, context, dim=Name("$N_STATE_HEADS * $D_STATE_HEAD"))}
    if activation.text or activation.expression:
        parts["activation"] = activation
    text = fill(
        _CLASS,
        slower=spec.slower_in_later_layers,
        gate=spec.output_gate,
        activation_class="activation" in parts and not activation.is_function,
        packed=linear(context, "D_MODEL", "3 * d_heads", bias=False),
        gate_projection=linear(context, "D_MODEL", "d_heads", bias=False),
        projection=linear(context, "d_heads", "D_MODEL", bias=False),
        activated=activation.call("apply", x="self.qkv(x_BTE)"),
    )
    return Written("Lightning", text, settings=settings, parts=parts, section="attention", fields=_FIELDS)
