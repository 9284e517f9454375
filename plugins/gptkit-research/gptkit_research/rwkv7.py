"""Attention `rwkv7`.

Shapes: B batch, T tokens, E model width, H heads, D features of a head, X = H · D features of all heads.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.parameters import ParameterOptions
from gptkit.nn.token_shift import shifted
from gptkit_research.token_shift import depth
from gptkit_research.transition_rule import transition_rule, transition_step

__all__ = ["RWKV7", "RWKV7Spec"]

_POWERS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
"""Exponents of the initial mixes for r, w, k, v, a, g: the order of the rows of `mix`."""


class RWKV7Spec(AttentionSpec):
    """Time mixing of RWKV-7 (Goose): a recurrent state whose decay, removal and addition are vectors of the token.

    Formula:
        x_u = x_t + μ_u ⊙ (x_{t−1} − x_t) for each use u: r, w, k, v, a, g;  LoRA_f(x) = W_2 f(W_1 x)
        r = W_r x_r;  k = W_k x_k;  w = exp(−e^{−1/2} σ(b_w + LoRA_tanh(x_w)));  a = σ(b_a + LoRA(x_a));  g = LoRA_σ(x_g)
        v = W_v x_v, in layers after the first v ← v + σ(b_v + LoRA(x_v)) ⊙ (v_first − v), v_first being that of the first
        κ = (k ⊙ m_κ) / ‖k ⊙ m_κ‖ of each head;  k ← k ⊙ (1 + (a − 1) ⊙ m_k)
        S ← diag(w) S − (a ⊙ κ) (κᵀ S) + k vᵀ, with the S before the token on the right
        y = W_o [g ⊙ (norm(Sᵀ r) + (Σ r ⊙ k ⊙ m_r) v)], all heads together; norm is a layer norm of each head

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, n_heads, d_head, d_head), and the last token's input, d_model values per row

    Paper:
        https://arxiv.org/abs/2503.14456

    Notes:
        A whole RWKV-7 has this attention, the block `token-shift`, the feed-forward
        `{name: mlp, activation: relu-squared, bias: false}`, and layer norms, one of them after the embedding. Time and
        memory per token do not grow with the length of the text. The recurrence encodes the order of tokens: such a layer
        accepts no relative position, so set `position: none`. The first layer of this attention publishes its values
        (`Forward.publish`) under the key `("rwkv7", n_heads · d_head)`. The initial mixes and biases are those of RWKV-LM,
        functions of the layer and the feature; the matrices are drawn by the model's initializer. Prompts and training
        compute chunks of 64 tokens at once: on one CPU thread, a training step of 2 layers of width 256 with 512 tokens
        takes 0.40 s, and 1.72 s with the recurrence token by token.
    """

    name: Literal["rwkv7"] = "rwkv7"
    accepts: ClassVar[frozenset[str]] = frozenset()

    n_heads: int | None = Field(None, ge=1, description="Number of heads; d_model / d_head by default.")
    d_head: int = Field(64, ge=2, description="Features of a head.")
    decay_rank: int | None = Field(None, ge=1, description="Inner width of LoRA for w; grows with √d_model by default.")
    rate_rank: int | None = Field(None, ge=1, description="Inner width of LoRA for a; grows with √d_model by default.")
    value_rank: int | None = Field(None, ge=1, description="Inner width of LoRA for v; grows with √d_model by default.")
    gate_rank: int | None = Field(None, ge=1, description="Inner width of LoRA for g; grows with √d_model by default.")
    eps: float = Field(1e-5, gt=0, description="A d_head-th of what is added to the variance of a head's output.")
    examples = (
        {"n_heads": 2, "d_head": 8, "decay_rank": 5, "rate_rank": 6, "value_rank": 3, "gate_rank": 7},
        {"n_heads": 3, "d_head": 6, "eps": 1e-3},
    )

    def resolved(self, context: BuildContext) -> Any:
        root, factor = context.d_model**0.5, self.d_head / 64
        return self.replace(
            n_heads=self.n_heads or max(1, context.d_model // self.d_head),
            decay_rank=self.decay_rank or _rank(2.5 * root * factor),
            rate_rank=self.rate_rank or _rank(2.5 * root * factor),
            value_rank=self.value_rank or _rank(1.7 * root * factor),
            gate_rank=self.gate_rank or _rank(5 * root),
        )

    def build(self, context: BuildContext) -> RWKV7:
        return RWKV7(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit_research.written.rwkv7 import rwkv7

        return rwkv7(self, context)


def _rank(width: float) -> int:
    """Return a width as the nearest multiple of 32, at least 32."""
    return max(32, round(width / 32) * 32)


class LowRank(nn.Module):
    """W_2 f(W_1 x), with a bias unless `bias` is false."""

    def __init__(self, context: BuildContext, rank: int, d_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.down = context.linear(context.d_model, rank, bias=False)
        self.up = context.linear(rank, d_out, bias=bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "zeros"}

    def forward(self, x_BTE: Tensor, activation: Any = None) -> Tensor:
        hidden = self.down(x_BTE)
        return self.up(hidden if activation is None else activation(hidden))  # type: ignore[no-any-return]


class RWKV7(Attention):
    """The runtime part of `RWKV7Spec`: computes chunks of tokens in training and for prompts, single tokens in decoding."""

    def __init__(self, spec: RWKV7Spec, context: BuildContext) -> None:
        super().__init__()
        assert spec.n_heads is not None
        assert spec.decay_rank is not None
        assert spec.rate_rank is not None
        assert spec.value_rank is not None
        assert spec.gate_rank is not None
        self.n_heads, self.d_head, self.d_model = spec.n_heads, spec.d_head, context.d_model
        self.eps = spec.eps * spec.d_head
        width = spec.n_heads * spec.d_head
        index, self.n_layers = context.parts.index, context.n_layers
        self.index = index
        self.key_of_values = ("rwkv7", width)
        # Layers are built in order; the first one publishes its values, and mixes none.
        self.is_first = context.share(self.key_of_values, lambda: index) == index
        self.publishes = (self.key_of_values,) if self.is_first else ()
        self.reads = () if self.is_first else (self.key_of_values,)
        self.mix = nn.Parameter(torch.zeros(len(_POWERS), context.d_model))
        self.receptance = context.linear(context.d_model, width, bias=False)
        self.key = context.linear(context.d_model, width, bias=False)
        self.value = context.linear(context.d_model, width, bias=False)
        self.decay = LowRank(context, spec.decay_rank, width)
        self.rate = LowRank(context, spec.rate_rank, width)
        self.value_mix = None if self.is_first else LowRank(context, spec.value_rank, width)
        self.gate = LowRank(context, spec.gate_rank, width, bias=False)
        self.removal_scale = nn.Parameter(torch.zeros(width))
        """m_κ."""
        self.key_rate = nn.Parameter(torch.zeros(width))
        """m_k."""
        self.bonus = nn.Parameter(torch.zeros(spec.n_heads, spec.d_head))
        """m_r."""
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.output = context.linear(width, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {
            "output.weight": "output",
            "mix": self._initial_mix,
            "decay.up.bias": lambda shape, generator: self._decay_bias(shape[0]),
            "rate.up.bias": lambda shape, generator: self._linear(shape[0]) * 0.4 + self._zigzag(shape[0]) * 0.3 - 0.19,
            "removal_scale": lambda shape, generator: 0.71 - self._linear(shape[0]) * 0.1,
            "key_rate": lambda shape, generator: torch.full(shape, 1.02),
            "bonus": lambda shape, generator: torch.full(shape, -0.04),
            "norm_weight": lambda shape, generator: torch.full(
                shape, ((min(self.index, self.n_layers - 1) + 1) / self.n_layers) ** 0.7
            ),
            "norm_bias": "zeros",
        }
        if self.value_mix is not None:
            initial["value_mix.up.bias"] = lambda shape, generator: 0.73 - self._linear(shape[0]) * 0.4
        return initial

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # Tables of factors, not matrices that vectors are multiplied with.
        return dict.fromkeys(("mix", "bonus"), ParameterOptions(decay=False, hidden=False))

    def _initial_mix(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        fractions = torch.arange(shape[1]) / shape[1]
        remaining = 1 - depth(self.index, self.n_layers)
        return torch.stack([1 - fractions ** (power * remaining) for power in _POWERS])

    def _decay_bias(self, width: int) -> Tensor:
        layer = min(self.index, self.n_layers - 1) / max(1, self.n_layers - 1)
        fractions = torch.arange(width) / max(1, width - 1)
        slow_to_fast = -6 + 6 * fractions ** (1 + layer**0.3)
        return slow_to_fast + 0.5 + self._zigzag(width) * 2.5

    def _linear(self, width: int) -> Tensor:
        return torch.arange(width) / max(1, width - 1) - 0.5

    def _zigzag(self, width: int) -> Tensor:
        half = (self.d_head - 1) / 2
        zigzag = (torch.arange(width) % self.d_head - half) / half
        return zigzag * zigzag.abs()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_tokens = x_BTE.shape[1]
        state = cast("RecurrentState | None", forward.state(self))
        last_B1E, memory = (None, None) if state is None or state.tensors is None else state.tensors
        # Padding adds nothing to an empty state, which therefore stays empty.
        valid = None if forward.valid_BT is None else forward.valid_BT[:, -n_tokens:, None]
        if valid is not None:
            x_BTE = x_BTE.masked_fill(~valid, 0)
        delta_BTE = shifted(x_BTE, last_B1E, forward) - x_BTE
        x_r, x_w, x_k, x_v, x_a, x_g = (torch.addcmul(x_BTE, delta_BTE, mix_E) for mix_E in self.mix.to(x_BTE.dtype))
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        v_BTX = self._values(x_v, forward)
        if valid is not None:
            v_BTX = v_BTX.masked_fill(~valid, 0)
        r, k, v = (self._heads(part.to(wide)) for part in (self.receptance(x_r), self.key(x_k), v_BTX))
        a = self._heads(self.rate(x_a).to(wide).sigmoid())
        g = self._heads(-math.exp(-0.5) * self.decay(x_w, torch.tanh).to(wide).sigmoid())
        removal_HD, key_rate_HD, bonus_HD = (
            parameter.to(wide).view(self.n_heads, 1, self.d_head)
            for parameter in (self.removal_scale, self.key_rate, self.bonus)
        )
        unit = F.normalize(k * removal_HD, dim=-1)
        k = k * (1 + (a - 1) * key_rate_HD)
        if memory is None:
            memory = v.new_zeros(x_BTE.shape[0], self.n_heads, self.d_head, self.d_head)
        if n_tokens == 1:
            step, memory = transition_step(*(part[:, :, 0] for part in (r, g, k, v, -unit, unit * a)), memory)
            out_BHTD = step[:, :, None]
        else:
            segments = None if forward.documents_BT is None else (forward.positions == 0).cumsum(dim=1)[:, -n_tokens:]
            out_BHTD, memory = transition_rule(r, g, k, v, -unit, unit * a, memory, segments_BT=segments)
        if state is not None:
            state.update(n_tokens, x_BTE[:, -1:].clone(), memory)
        out_BHTD = F.layer_norm(out_BHTD, (self.d_head,), eps=self.eps)
        out_BHTD = out_BHTD * self._per_head(self.norm_weight, wide) + self._per_head(self.norm_bias, wide)
        out_BHTD = out_BHTD + (r * k * bonus_HD).sum(dim=-1, keepdim=True) * v
        gate_BTX = self.gate(x_g, torch.sigmoid).to(wide)
        return self.output((out_BHTD.transpose(1, 2).flatten(2) * gate_BTX).to(x_BTE.dtype))  # type: ignore[no-any-return]

    def _values(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        v_BTX: Tensor = self.value(x_BTE)
        if self.value_mix is None:
            forward.publish(self, self.key_of_values, v_BTX)
            return v_BTX
        # Later layers may run on the last tokens only.
        first_BTX = forward.read(self, self.key_of_values)[:, -x_BTE.shape[1] :]
        return torch.addcmul(v_BTX, self.value_mix(x_BTE).sigmoid(), first_BTX - v_BTX)

    def _heads(self, x_BTX: Tensor) -> Tensor:
        return x_BTX.unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)

    def _per_head(self, parameter_X: Tensor, wide: torch.dtype) -> Tensor:
        return parameter_X.to(wide).view(self.n_heads, 1, self.d_head)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(((1, self.d_model), allocation.dtype), ((self.n_heads, self.d_head, self.d_head), wide))
