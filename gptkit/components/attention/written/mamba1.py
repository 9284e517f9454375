"""Template of `mamba1`, as a recurrence over tokens.

The built module computes chunks of tokens at once, which is faster and gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.recurrent import convolved
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.mamba1 import Mamba1Spec

__all__ = ["mamba1"]

_HEAD_LINEAR = '''
class $class_name(nn.Module):
    """Linear projections of heads, each with a matrix of its own: (B, T, H, I) to (B, T, H, O)."""

    def __init__(self, n_heads: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_heads, d_out, d_in))

    def forward(self, x_BTHI: Tensor) -> Tensor:
        """Map the features of each head, (B, T, H, I) to (B, T, H, O)."""
        return torch.einsum("bthi,hoi->btho", x_BTHI, self.weight)
'''

_CLASS = '''
class $class_name(nn.Module):
    """Mamba: a recurrent state of fixed size for each feature, with decays of their own.

    S = exp(-exp(decay_log) Δ) S + (Δ v) kᵀ, y = S q + skip v; v, k, q are x, B, C of the paper.
    #if headed
    Each head of features has Δ, k and q of its own.
    #end
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        self.input = $input
        self.conv = nn.Conv1d($D_INNER, $D_INNER, $CONV_WIDTH, groups=$D_INNER$no_conv_bias)
        #if activation_class
        self.activation = $activation
        #end
        self.select = $selection
        #if normed
        self.step_norm = $step_norm
        self.key_norm = $key_norm
        self.query_norm = $query_norm
        #end
        self.step = $step
        self.step_bias = nn.Parameter(torch.zeros($D_INNER))
        self.decay_log = nn.Parameter(torch.zeros($D_INNER, $D_STATE))
        self.skip = nn.Parameter(torch.ones($D_INNER))
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with the state of earlier ones, (B, T, E) to (B, T, E)."""
        u_BTX, gate_BTX = self.input(x_BTE).chunk(2, dim=-1)
        v_BTX = $activated
        widths = ($STEP_RANK, $D_STATE, $D_STATE)
        #if headed
        v_BTHP = v_BTX.reshape(*v_BTX.shape[:2], $N_STATE_HEADS, -1)
        r_BTHR, k_BTHN, q_BTHN = self.select(v_BTHP).split(widths, dim=-1)
        #if normed
        r_BTHR = self.step_norm(r_BTHR)
        k_BTHN, q_BTHN = self.key_norm(k_BTHN), self.query_norm(q_BTHN)
        #end
        # All features of a head have the same k and q.
        k_BTXN, q_BTXN = (x.repeat_interleave(v_BTHP.shape[-1], dim=2) for x in (k_BTHN, q_BTHN))
        step_BTX1 = F.softplus(self.step(r_BTHR).flatten(2) + self.step_bias)[..., None]
        decay_BTXN = torch.exp(-self.decay_log.exp() * step_BTX1)
        added_BTXN = step_BTX1 * v_BTX[..., None] * k_BTXN
        #else
        r_BTR, k_BTN, q_BTN = self.select(v_BTX).split(widths, dim=-1)
        #if normed
        r_BTR, k_BTN, q_BTN = self.step_norm(r_BTR), self.key_norm(k_BTN), self.query_norm(q_BTN)
        #end
        step_BTX1 = F.softplus(self.step(r_BTR) + self.step_bias)[..., None]
        decay_BTXN = torch.exp(-self.decay_log.exp() * step_BTX1)
        added_BTXN = step_BTX1 * v_BTX[..., None] * k_BTN[:, :, None]
        #end
        state_BXN = cache.get("state", torch.zeros_like(added_BTXN[:, 0]))
        outputs: list[Tensor] = []
        for t in range(x_BTE.shape[1]):
            state_BXN = decay_BTXN[:, t] * state_BXN + added_BTXN[:, t]
            #if headed
            outputs.append((state_BXN * q_BTXN[:, t]).sum(dim=-1))
            #else
            outputs.append((state_BXN @ q_BTN[:, t, :, None])[..., 0])
            #end
        cache["state"] = state_BXN
        y_BTX = torch.stack(outputs, dim=1) + self.skip * v_BTX
        return self.output(y_BTX * F.silu(gate_BTX))
'''

_FIELDS = ("d_inner", "n_heads", "d_state", "step_rank", "conv_width", "conv_bias", "bias", "activation", "norm")


head_linear = Written("HeadLinear", fill(_HEAD_LINEAR), section="linear")
"""The projections of heads."""


def mamba1(spec: Mamba1Spec, context: WritingContext) -> Written:
    """Return the layer as a class."""
    settings = {
        "D_INNER": Setting(spec.d_inner, "features of a recurrent layer"),
        "D_STATE": Setting(spec.d_state, "features of a key of a recurrent layer"),
        "STEP_RANK": Setting(spec.step_rank, "features of the step sizes"),
        "CONV_WIDTH": Setting(spec.conv_width, "tokens of the convolution"),
    }
    activation = written(spec.activation, context)
    parts = {"convolved": convolved}
    headed = spec.n_heads > 1
    if headed:
        settings["N_STATE_HEADS"] = Setting(spec.n_heads, "heads of the recurrent layers")
        parts["head_linear"] = head_linear
    if activation.text or activation.expression:
        parts["activation"] = activation
    normed = spec.norm.name != "none"
    if normed:
        dims = {"step_norm": "$STEP_RANK", "key_norm": "$D_STATE", "query_norm": "$D_STATE"}
        parts |= {name: written(spec.norm, context, dim=Name(dim)) for name, dim in dims.items()}
    text = fill(
        _CLASS,
        input=linear(context, "D_MODEL", "2 * $D_INNER", bias=spec.bias),
        selection=_projection(context, headed, "$D_INNER", "$STEP_RANK + 2 * $D_STATE"),
        step=_projection(context, headed, "$STEP_RANK", "$D_INNER"),
        headed=headed,
        projection=linear(context, "$D_INNER", "D_MODEL", bias=spec.bias),
        no_conv_bias="" if spec.conv_bias else ", bias=False",
        activated=activation.call("apply", x="$convolved(u_BTX, self.conv, cache)"),
        activation_class="activation" in parts and not activation.is_function,
        normed=normed,
    )
    return Written(
        "SelectiveStateSpace", text, settings=settings, parts=parts, section="attention", variant="mamba1", fields=_FIELDS
    )


def _projection(context: WritingContext, headed: bool, d_in: str, d_out: str) -> str:
    """Return the expression of a projection, or of one for each head, whose features are a part of `$D_INNER`."""
    if not headed:
        return linear(context, d_in, d_out, bias=False)
    d_in, d_out = (f"{size} // $N_STATE_HEADS" if size == "$D_INNER" else size for size in (d_in, d_out))
    return f"$head_linear_class($N_STATE_HEADS, {d_in}, {d_out})"
