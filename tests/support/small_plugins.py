"""A small component of each kind, as a third party writes it: without a template for `gptkit eject`."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import component
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.router import RouterSpec
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.block import Block
from gptkit.nn.embedding import Embedding
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.head import Head
from gptkit.nn.initial import Initial
from gptkit.nn.linear import TransformedLinear
from gptkit.nn.position import Position
from gptkit.nn.router import Router
from tests.support.plugin_registry import registry_of

__all__ = ["SMALL", "small_registry"]

SHARE = 0.75


def blended(x: Tensor, y: Tensor, share: float = SHARE) -> Tensor:
    """Return a mean of two tensors."""
    return share * x + (1 - share) * y


class _Length(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def initial(self) -> dict[str, Initial]:
        return {"weight": "ones"}

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (0.1 + x.norm(dim=-1, keepdim=True))


class LengthSpec(NormSpec):
    """Divide by the length."""

    name: Literal["small-length"] = "small-length"

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return _Length(dim)


class _Bump(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.exp(-(x**2))


class BumpSpec(ActivationSpec):
    """A bump."""

    name: Literal["small-bump"] = "small-bump"

    def build(self, context: BuildContext) -> nn.Module:
        return _Bump()


class _Centered(TransformedLinear):
    def transformed_weight(self) -> Tensor:
        return self.weight - self.weight.mean(dim=-1, keepdim=True)


class CenteredSpec(LinearSpec):
    """Weights without their mean."""

    name: Literal["small-centered"] = "small-centered"

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        return _Centered(d_in, d_out, bias=bias)


class _Decay(Position):
    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.ones(n_heads))

    def initial(self) -> dict[str, Initial]:
        return {"slopes": "ones"}

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        distance = (query_positions[..., :, None] - key_positions[..., None, :]).clamp_min(0).to(self.slopes.dtype)
        distance = distance[:, None] if distance.dim() == 3 else distance[None, None]
        return -self.slopes.exp()[:, None, None] * distance.sqrt()


class DecaySpec(PositionSpec):
    """A term that falls with the root of the distance."""

    name: Literal["small-decay"] = "small-decay"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return _Decay(heads.n_heads)


class _Turn(Position):
    def __init__(self, heads: HeadShape, base: float) -> None:
        super().__init__()
        self.base = base
        self.d_head = heads.d_head

    def prepare(self, positions: Tensor) -> Any:
        angles = positions[..., None] / self.base ** (torch.arange(self.d_head, device=positions.device) / self.d_head)
        return angles[:, None] if positions.dim() == 2 else angles

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        def wide(x: Tensor) -> Tensor:
            return torch.cat((x * prepared.cos().to(x.dtype), x * prepared.sin().to(x.dtype)), dim=-1)

        return wide(q_BHTD), wide(k_BKTD)


class TurnSpec(PositionSpec):
    """Each feature is a point that turns."""

    name: Literal["small-turn"] = "small-turn"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width"})
    base: float = Field(50.0, description="Base of the frequencies.")

    def rotated_width(self, d_head: int) -> int:
        return 2 * d_head

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return _Turn(heads, self.base)


class _Wave(Position):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.ones(d_model))

    def initial(self) -> dict[str, Initial]:
        return {"strength": "ones"}

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        return x_BTE * (1 + 0.1 * torch.sin(positions[..., None] * self.strength))


class WaveSpec(PositionSpec):
    """Vectors that oscillate with the position."""

    name: Literal["small-wave"] = "small-wave"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    def build_embedding(self, context: BuildContext) -> Position:
        return _Wave(context.d_model)


class _Mean(SoftmaxAttention):
    def __init__(self, spec: MeanSpec, context: BuildContext) -> None:
        heads = HeadShape(spec.n_heads, 1, spec.d_head)
        super().__init__(context, heads, scale=spec.d_head**-0.5, window=spec.window)
        self.shape = (spec.n_heads, spec.d_head)
        self.queries = context.linear(context.d_model, spec.n_heads * spec.d_head, bias=False)
        self.keys = context.linear(context.d_model, spec.d_head, bias=False)
        self.output = context.linear(spec.n_heads * spec.d_head, context.d_model, bias=True)

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        q_BHTD = self.queries(x_BTE).unflatten(-1, self.shape).transpose(1, 2)
        k_B1TD = self.keys(x_BTE)[:, None]
        return q_BHTD, k_B1TD, blended(k_B1TD, k_B1TD.tanh())

    def combine(self, out_BHTV: Tensor, x_BTE: Tensor) -> Tensor:
        return self.output(out_BHTV.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MeanSpec(AttentionSpec):
    """Attention with one head of keys, whose values are the keys."""

    name: Literal["small-attention"] = "small-attention"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})
    n_heads: int = Field(2, description="Heads.")
    d_head: int = Field(8, description="Features of a head.")
    window: int | None = Field(None, description="Attention window.")

    def build(self, context: BuildContext) -> _Mean:
        return _Mean(self, context)


class _Product(FeedForward):
    def __init__(self, spec: ProductSpec, context: BuildContext) -> None:
        super().__init__()
        self.width = spec.width
        self.first = context.linear(context.d_model, spec.width, bias=True)
        self.second = nn.Linear(context.d_model, spec.width)
        self.activation = spec.activation.build(context)
        self.sizes = {"width": spec.width} if spec.mapped else None
        self.last = context.linear(spec.width, context.d_model, bias=False)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        first_BTF = self.activation(self.first(x_BTE))
        # A comment that is longer than the lines of a written file may be, so that it has to be broken there (as here).
        mixed_BTF = (
            blended(first_BTF * self.second(x_BTE), first_BTF)
            / math.sqrt(self.width if self.sizes is None else self.sizes["width"])
            + 0.0 * first_BTF.abs().sum()
        )
        if self.training:
            forward.add_loss("product", mixed_BTF.square().mean())
        return self.last(mixed_BTF)  # type: ignore[no-any-return]


class ProductSpec(FeedForwardSpec):
    """A product of two projections."""

    name: Literal["small-feedforward"] = "small-feedforward"
    width: int = Field(12, description="Hidden features.")
    activation: ActivationSpec = component("silu", description="Activation.")
    mapped: bool = Field(False, description="Have the width in a mapping.")

    def build(self, context: BuildContext) -> FeedForward:
        return _Product(self, context)


class _TokenBias(FeedForward):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.table = nn.Embedding(context.vocab_size, context.d_model)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        return torch.tanh(x_BTE) + self.table(forward.ids_BT[:, -x_BTE.shape[1] :])  # type: ignore[no-any-return]


class TokenBiasSpec(FeedForwardSpec):
    """A vector of each token."""

    name: Literal["small-token-bias"] = "small-token-bias"

    def build(self, context: BuildContext) -> FeedForward:
        return _TokenBias(context)


class _Nearest(Router):
    def __init__(self, d_model: int, n_experts: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.centers = nn.Parameter(torch.zeros(n_experts, d_model))

    def initial(self) -> dict[str, Initial]:
        return {"centers": "weight"}

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores_NX = F.linear(x_NE, self.centers)
        weights_NK, experts_NK = scores_NX.softmax(dim=-1).topk(self.k, dim=-1)
        return experts_NK, weights_NK


class NearestSpec(RouterSpec):
    """The experts with the nearest centers."""

    name: Literal["small-router"] = "small-router"
    k: int = Field(2, ge=1, le=3, description="Experts of a token.")

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        return _Nearest(context.d_model, n_experts, self.k)


class _Gates(Block):
    def __init__(self, spec: GatesSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward = parts.feedforward.build(context)
        self.gates = nn.Parameter(torch.ones(2))
        self.layer = parts.index
        self.factor = spec.factor

    def initial(self) -> dict[str, Initial]:
        return {"gates": "ones"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        first, second = self.gates.to(x_BTE.dtype)
        x_BTE = x_BTE + first * self.attention(self.norm(x_BTE), forward) / (1 + self.layer)
        return x_BTE + self.factor * second * self.feedforward(x_BTE, forward)


class GatesSpec(BlockSpec):
    """A block with a gate for each branch."""

    name: Literal["small-block"] = "small-block"
    factor: float = Field(0.5, description="Factor.")

    def build(self, context: BuildContext) -> Block:
        return _Gates(self, context)


class _Doubled(Embedding):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.table = nn.Embedding(context.vocab_size, context.d_model)
        self.mix = nn.Linear(context.d_model, context.d_model, bias=False)

    @property
    def table_VE(self) -> nn.Parameter:
        return self.table.weight  # type: ignore[return-value]

    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        x_BTE = self.table(ids_BT)
        factor = (1 + 0.01 * forward.positions[..., None]).to(x_BTE.dtype)
        return x_BTE + torch.tanh(self.mix(x_BTE)) * factor  # type: ignore[no-any-return]


class DoubledSpec(EmbeddingSpec):
    """A table, and a projection of its rows."""

    name: Literal["small-embedding"] = "small-embedding"

    def build(self, context: BuildContext) -> Embedding:
        return _Doubled(context)


class _Bilinear(Head):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.inner = nn.Linear(context.d_model, context.d_model)
        self.outer = nn.Linear(context.d_model, context.vocab_size, bias=False)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        return self.outer(torch.tanh(self.inner(x_BTE)))  # type: ignore[no-any-return]

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        return F.cross_entropy(self(x_BTE, forward).flatten(0, 1).float(), targets_BT.flatten(), ignore_index=-100)


class BilinearSpec(HeadSpec):
    """Two projections."""

    name: Literal["small-head"] = "small-head"

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        return _Bilinear(context)


SMALL: tuple[Any, ...] = (
    LengthSpec,
    BumpSpec,
    CenteredSpec,
    DecaySpec,
    TurnSpec,
    WaveSpec,
    MeanSpec,
    ProductSpec,
    TokenBiasSpec,
    NearestSpec,
    GatesSpec,
    DoubledSpec,
    BilinearSpec,
)


def small_registry() -> Registry:
    """Return a registry of the built-in components and of these."""
    module = ModuleType("small_plugin")

    def gptkit_components() -> list[Any]:
        return list(SMALL)

    module.gptkit_components = hookimpl(gptkit_components)  # type: ignore[attr-defined]
    return registry_of(small_plugin=lambda: module)
