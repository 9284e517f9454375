"""Norms, activations, feed-forwards, routers and blocks with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.components.activation.elementwise import GeluSpec
from gptkit.components.block.modules.pre_norm import PreNorm
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.components.feedforward.mlp import MLPSpec
from gptkit.components.feedforward.modules.mlp import MLP
from gptkit.components.norm.modules.rms import RMSNorm
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.components.router.modules.top_k_softmax import TopKSoftmax
from gptkit.components.router.top_k_softmax import TopKSoftmaxSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.nn.router import Router
from tests.mutants.mutant import ANYTHING, Mutant, become


class WrongNorm(Mutant, RMSNormSpec):
    """Base of the norms below."""

    runtime: ClassVar[type[nn.Module]] = RMSNorm
    twin_class = RMSNormSpec

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        made: nn.Module = become(super().build(context, dim=dim), self.runtime)
        return made


class OverTheSequence(WrongNorm):
    """Divide by the root mean square of the whole sequence."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.square().mean(dim=(-2, -1), keepdim=True).add(1e-5).rsqrt() * self.weight  # type: ignore[operator]

    name: Literal["over-the-sequence"] = "over-the-sequence"
    runtime = Runtime
    caught_by = "position-wise"
    also = ("any-shape",)


class OverTheBatch(WrongNorm):
    """Subtract the mean over the batch."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - 0.5 * x.mean(dim=0, keepdim=True))

    name: Literal["over-the-batch"] = "over-the-batch"
    runtime = Runtime
    caught_by = "position-wise"
    also = ("any-shape",)


class BatchStatistics(WrongNorm):
    """Divide by the root mean square over the batch in training."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return super().forward(x)
            return x * x.square().flatten(0, -2).mean(0).add(1e-5).rsqrt() * self.weight  # type: ignore[operator]

    name: Literal["batch-statistics"] = "batch-statistics"
    runtime = Runtime
    caught_by = "training-sees-no-future"


class ThreeDimensions(WrongNorm):
    """Norm for (batch, tokens, features) only."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            n_batch, n_tokens, dim = x.shape if x.dim() != 2 else (1, *x.shape)
            return super().forward(x.view(n_batch, n_tokens, dim)).view(x.shape)

    name: Literal["three-dimensions"] = "three-dimensions"
    runtime = Runtime
    caught_by = "any-shape"


class NothingAdded(WrongNorm):
    """Divide a zero vector by zero."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.square().mean(dim=-1, keepdim=True).sqrt() * self.weight  # type: ignore[operator]

    name: Literal["nothing-added"] = "nothing-added"
    runtime = Runtime
    caught_by = "zero-vector"


class InPlace(WrongNorm):
    """Scale the input in place."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            normalized = super().forward(x)
            if not x.requires_grad:
                x.copy_(normalized)
            return normalized

    name: Literal["in-place"] = "in-place"
    runtime = Runtime
    caught_by = "leaves-input-alone"


class AlwaysSingle(WrongNorm):
    """Return fp32 for bf16."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return (
                super()
                .forward(x.float() if x.dtype == torch.bfloat16 else x)
                .to(torch.float32 if x.dtype == torch.bfloat16 else x.dtype)
            )

    name: Literal["always-single"] = "always-single"
    runtime = Runtime
    caught_by = "bf16-and-fp32"
    also = ("zero-vector",)


class Softmax(Mutant, GeluSpec):
    """Divide by the sum over all hidden features."""

    class Runtime(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(dim=-1)

    name: Literal["softmax"] = "softmax"
    external_names: ClassVar[tuple[str, ...]] = ()
    caught_by = "elementwise"

    def build(self, context: BuildContext) -> nn.Module:
        return self.Runtime()


class NamedOtherwise(Mutant, GeluSpec):
    """Name another function for configurations of external models."""

    name: Literal["named-otherwise"] = "named-otherwise"
    external_names: ClassVar[tuple[str, ...]] = ("gelu", "silu")
    caught_by = "external-names"


class Detached(Mutant, GeluSpec):
    """Detach the gradient."""

    class Runtime(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.gelu(x.detach())

    name: Literal["detached"] = "detached"
    caught_by = "gradients"

    def build(self, context: BuildContext) -> nn.Module:
        return self.Runtime()


class WrongFeedForward(Mutant, MLPSpec):
    """Base of the feed-forwards below."""

    runtime: ClassVar[type[nn.Module]] = MLP
    twin_class = MLPSpec

    def build(self, context: BuildContext) -> MLP:
        made: MLP = become(super().build(context), self.runtime)
        return made


class MixesPositions(WrongFeedForward):
    """Shift a share of the features by one token."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            before = torch.cat((torch.zeros_like(x_BTE[:, :1]), x_BTE[:, :-1]), dim=1)
            return super().forward(x_BTE + 0.3 * before, forward)

    name: Literal["mixes-positions"] = "mixes-positions"
    runtime = Runtime
    caught_by = "position-wise"


class LossPastTheContext(WrongFeedForward):
    """Write an auxiliary loss into the dictionary, which a fork of the context does not pass on."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            y_BTE = super().forward(x_BTE, forward)
            if self.training:
                forward.losses[f"size {id(self)}"] = y_BTE.square().mean()
            return y_BTE

    name: Literal["loss-past-the-context"] = "loss-past-the-context"
    runtime = Runtime
    caught_by = "recomputes"
    also = ("losses-exclude-padding",)


class DropsInEval(WrongFeedForward):
    """Apply dropout outside of training too."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return nn.functional.dropout(super().forward(x_BTE, forward), 0.3, training=True)

    name: Literal["drops-in-eval"] = "drops-in-eval"
    runtime = Runtime
    caught_by = "eval-is-deterministic"
    also = ANYTHING


class AddsToItsInput(WrongFeedForward):
    """Add the output, which is in bf16 under autocast, to zeros of the input's dtype."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            y_BTE = super().forward(x_BTE, forward)
            rows_T = torch.arange(x_BTE.shape[1], device=x_BTE.device)
            return torch.zeros_like(x_BTE).index_add(1, rows_T, y_BTE)

    name: Literal["adds-to-its-input"] = "adds-to-its-input"
    runtime = Runtime
    caught_by = "trains-in-bf16"


class WrongRouter(Mutant, TopKSoftmaxSpec):
    """Base of the routers below."""

    balance_loss: float = Field(0.01, description="As the twin's, and not zero.")
    runtime: ClassVar[type[nn.Module]] = TopKSoftmax
    twin_class = TopKSoftmaxSpec

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        made: Router = become(super().build(context, n_experts=n_experts), self.runtime)
        return made


class ExpertTwice(WrongRouter):
    """Send every token to its first expert twice."""

    class Runtime(TopKSoftmax):
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
            experts_NK, weights_NK = super().forward(x_NE, forward, valid_N)
            return experts_NK[:, :1].expand_as(experts_NK).clone(), weights_NK

    name: Literal["expert-twice"] = "expert-twice"
    runtime = Runtime
    caught_by = "chooses-experts"


class BalancedOverTheBatch(WrongRouter):
    """Subtract the mean over all tokens, which balances the experts."""

    class Runtime(TopKSoftmax):
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().forward(x_NE - x_NE.mean(0, keepdim=True), forward, valid_N)

    name: Literal["balanced-over-the-batch"] = "balanced-over-the-batch"
    runtime = Runtime
    caught_by = "routes-token-by-token"
    also = ("losses-exclude-padding", "padding-does-not-count")


class PaddingCounts(WrongRouter):
    """Include padding in the auxiliary losses."""

    class Runtime(TopKSoftmax):
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().forward(x_NE, forward, None)

    name: Literal["padding-counts"] = "padding-counts"
    runtime = Runtime
    caught_by = "padding-does-not-count"
    also = ("losses-exclude-padding",)


class WrongBlock(Mutant, PreNormSpec):
    """Base of the blocks below."""

    runtime: ClassVar[type[nn.Module]] = PreNorm
    twin_class = PreNormSpec

    def build(self, context: BuildContext) -> PreNorm:
        made: PreNorm = become(super().build(context), self.runtime)
        return made


class DropsAPart(WrongBlock):
    """Build a feed-forward without using it."""

    class Runtime(PreNorm):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            branch_BTE = self.attention(self.attention_norm(x_BTE), forward)
            return self._join(x_BTE, branch_BTE, self.attention_stream_norm, self.attention_output_norm)

    name: Literal["drops-a-part"] = "drops-a-part"
    runtime = Runtime
    caught_by = "gradients"


class PeeksAhead(WrongBlock):
    """Add a part of the next token's vector."""

    class Runtime(PreNorm):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            after = torch.cat((x_BTE[:, 1:], torch.zeros_like(x_BTE[:, :1])), dim=1)
            return super().forward(x_BTE, forward) + 0.1 * after

    name: Literal["peeks-ahead"] = "peeks-ahead"
    runtime = Runtime
    caught_by = "no-future-leak"
    also = (
        "static-cache",
        "cache-reorders",
        "cache-truncates",
        "cache-marks",
        "cache-joins",
        "cached-equals-full",
        "documents-keep-apart",
        "uneven-prompts-cached",
        "cache-extracts",
    )
