"""Attentions with one error each."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, Mutant, become

# Cached steps differ for every error in the cache or the rotation.
DECODING = (
    *("cached-equals-full", "static-cache", "cache-reorders", "cache-truncates", "cache-marks", "cache-joins"),
    "uneven-prompts-cached",
)


class Base(MultiHeadSpec):
    """Multi-head attention with the runtime class `runtime`."""

    n_heads: int | None = Field(2, description="Query heads.")
    d_head: int | None = Field(16, description="Features of a head.")
    runtime: ClassVar[type[nn.Module]] = GroupedQueryAttention

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made: GroupedQueryAttention = become(super().build(context), self.runtime)
        return made


class Wrong(Mutant, Base):
    """Base of the mutants below."""

    twin_class = MultiHeadSpec


def altered(state: Any, mixin: type) -> Any:
    """Return the state with the methods of `mixin` in front."""
    cls = type("State", (mixin, type(state)), {})
    other = cls.__new__(cls)
    other.__dict__.update(state.__dict__)
    return other


def blind(forward: Forward, **changes: Any) -> Forward:
    """Return a copy of the forward context with changes."""
    other = copy.copy(forward)
    other._memo = {}
    for name, value in changes.items():
        setattr(other, name, value)
    return other


class ScalesItsInput(Wrong):
    """Multiply the vectors that the block passes, in place."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE.mul_(1.5), forward)

    name: Literal["scales-its-input"] = "scales-its-input"
    runtime = Runtime
    caught_by = "leaves-input-alone"
    also = ANYTHING


class LeaksOne(Wrong):
    """Each token also attends to the next one."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            after = torch.cat((x_BTE[:, 1:], torch.zeros_like(x_BTE[:, :1])), dim=1)
            return super().forward(x_BTE + 0.3 * after, forward)

    name: Literal["leaks-one"] = "leaks-one"
    runtime = Runtime
    caught_by = "no-future-leak"
    also = (*DECODING, "documents-keep-apart", "takes-wider-queries", "window-counts-tokens", "cache-extracts")


class SeesAll(Wrong):
    """Without a cache, every token attends to the whole row."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE + 0.3 * x_BTE.mean(dim=1, keepdim=True), forward)

    name: Literal["sees-all"] = "sees-all"
    runtime = Runtime
    caught_by = "no-future-leak"
    also = (
        *DECODING,
        "backends-agree",
        "documents-keep-apart",
        "padding-is-ignored",
        "takes-wider-queries",
        "window-counts-tokens",
        "cache-extracts",
    )


class WindowOffByOne(Wrong):
    """Attention window that excludes the current token."""

    name: Literal["window-off-by-one"] = "window-off-by-one"
    caught_by = "window-counts-tokens"
    also = ("attention-weights",)

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        return super(Wrong, self.replace(window=None if self.window is None else self.window + 1)).build(context)  # type: ignore[no-any-return]


class WindowIgnored(Wrong):
    """Attention window that is ignored."""

    name: Literal["window-ignored"] = "window-ignored"
    caught_by = "window-counts-tokens"
    also = ("attention-weights",)

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        return super(Wrong, self.replace(window=None)).build(context)  # type: ignore[no-any-return]


class WindowForgets(Wrong):
    """Attention window that is one token shorter with a cache."""

    class Runtime(GroupedQueryAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: int) -> Tensor:
            if self.window is not None and k.shape[2] == self.window and q.shape[2] == 1:
                k, v, offset = k[:, :, 1:], v[:, :, 1:], offset + 1
            return super().score(q, k, v, forward, offset)

    name: Literal["window-forgets"] = "window-forgets"
    runtime = Runtime
    caught_by = "cached-equals-full"
    also = ("cache-reorders", "cache-truncates", "cache-marks", "cache-joins", "uneven-prompts-cached", "cache-extracts")


class AssumesLast(Wrong):
    """Assume that this call's tokens are the last visible ones, which is wrong in a cache of fixed shapes."""

    class Runtime(GroupedQueryAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            indices_S = torch.arange(k.shape[2], device=k.device)
            back_TS = (indices_S[-q.shape[2] :, None] - indices_S).square()  # linear in the distance would cancel
            return super().score(q, k, v, forward, offset, added=-0.05 * back_TS.to(q.dtype))

    name: Literal["assumes-last"] = "assumes-last"
    runtime = Runtime
    caught_by = "static-cache"

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.added_term, made.features = True, replace(made.features, added_term=True)
        return made

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        features = super().score_features(context)
        return None if features is None else replace(features, added_term=True)


class DropsBiasWhenDecoding(Wrong):
    """Omit the position's bias for single tokens with a cache."""

    class Runtime(GroupedQueryAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: int) -> Tensor:
            kept, self.biases = self.biases, self.biases and q.shape[2] > 1
            try:
                return super().score(q, k, v, forward, offset)
            finally:
                self.biases = kept

    name: Literal["drops-bias-when-decoding"] = "drops-bias-when-decoding"
    runtime = Runtime
    caught_by = "cached-equals-full"
    also = (
        "static-cache",
        "cache-reorders",
        "cache-truncates",
        "cache-marks",
        "cache-joins",
        "uneven-prompts-cached",
        "cache-extracts",
    )


class RotatesTwice(Wrong):
    """Rotate queries and keys twice."""

    class Runtime(GroupedQueryAttention):
        def rotate(self, q: Tensor, k: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
            return super().rotate(*super().rotate(q, k, forward), forward)

    name: Literal["rotates-twice"] = "rotates-twice"
    runtime = Runtime
    caught_by = "rotates-once"
    also = ("takes-wider-queries",)


class PositionsRestart(Wrong):
    """Positions that start at 0 in every call, ignoring the cache."""

    class Runtime(GroupedQueryAttention):
        def rotate(self, q: Tensor, k: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
            return super().rotate(q, k, blind(forward, offset=0))

    name: Literal["positions-restart"] = "positions-restart"
    runtime = Runtime
    caught_by = "cached-equals-full"
    also = (
        "static-cache",
        "cache-reorders",
        "cache-truncates",
        "cache-marks",
        "cache-joins",
        "rotates-once",
        "takes-wider-queries",
        "uneven-prompts-cached",
        "cache-extracts",
    )


class IgnoresPositions(Wrong):
    """Accept positions and apply none."""

    class Runtime(GroupedQueryAttention):
        def attend(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward) -> Tensor:
            self.rotates = self.biases = self.reads_content = self.changes_values = False
            return super().attend(q, k, v, forward)

    name: Literal["ignores-positions"] = "ignores-positions"
    runtime = Runtime
    caught_by = "applies-positions"
    also = ("gradients", "rotates-once", "takes-wider-queries")


class DropsInEval(Wrong):
    """Apply dropout outside of training too."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return nn.functional.dropout(super().forward(x_BTE, forward), 0.3, training=True)

    name: Literal["drops-in-eval"] = "drops-in-eval"
    runtime = Runtime
    caught_by = "eval-is-deterministic"
    also = ANYTHING


class StartsByChance(Wrong):
    """Initialize the output's weights without the given generator."""

    class Runtime(GroupedQueryAttention):
        def initial(self) -> Any:
            return {"output.weight": lambda shape, generator: torch.randn(shape) * 0.02}

    name: Literal["starts-by-chance"] = "starts-by-chance"
    runtime = Runtime
    caught_by = "same-seed-same-result"


class BuildsByChance(Wrong):
    """Draw a random factor in the constructor."""

    class Runtime(GroupedQueryAttention):
        gain = 1.0

        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward) * self.gain

    name: Literal["builds-by-chance"] = "builds-by-chance"
    runtime = Runtime
    caught_by = "same-seed-same-result"
    also = ("deep-copy", "state-dict", "resumes-after-steps")

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.gain = 1 + random.random()  # type: ignore[attr-defined]
        return made


class UnsavedState(Wrong):
    """Mixing matrix that is not in the state dict."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward) * self.mix.to(x_BTE.dtype)  # type: ignore[operator]

    name: Literal["unsaved-state"] = "unsaved-state"
    runtime = Runtime
    caught_by = "state-dict"
    also = ("deep-copy", "same-seed-same-result", "resumes-after-steps")

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.register_buffer("mix", 1 + torch.rand(context.d_model), persistent=False)
        return made


class UnusedWeight(Wrong):
    """Weight that is not used."""

    class Runtime(GroupedQueryAttention):
        def initial(self) -> Any:
            return {**super().initial(), "spare": "zeros"}

    name: Literal["unused-weight"] = "unused-weight"
    runtime = Runtime
    caught_by = "gradients"

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.spare = nn.Parameter(torch.zeros(context.d_model))
        return made


class BrokenGradient(Wrong):
    """Add the square root of zero, whose gradient is not finite."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            out_BTE = super().forward(x_BTE, forward)
            return out_BTE + (out_BTE * 0).abs().sqrt()

    name: Literal["broken-gradient"] = "broken-gradient"
    runtime = Runtime
    caught_by = "gradients"
    also = ("trains-in-bf16",)


class SharesWithCopies(Wrong):
    """Deep copies share the original's weights."""

    class Runtime(GroupedQueryAttention):
        def __deepcopy__(self, memo: Any) -> Any:
            return copy.copy(self)

    name: Literal["shares-with-copies"] = "shares-with-copies"
    runtime = Runtime
    caught_by = "deep-copy"
    also = ("sums-over-parts",)


class KeepsOldWeights(Wrong):
    """Cache the output's bias at the first call."""

    class Runtime(GroupedQueryAttention):
        kept: Tensor | None = None

        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            if self.kept is None or self.kept.dtype != x_BTE.dtype:
                self.kept = self.output.weight.detach().mean(dim=1)
            return super().forward(x_BTE, forward) + self.kept

    name: Literal["keeps-old-weights"] = "keeps-old-weights"
    runtime = Runtime
    caught_by = "deep-copy"
    also = ("sums-over-parts", "state-dict", "resumes-after-steps")


class AllocatesEarly(Wrong):
    """Allocate a table, even on the meta device."""

    name: Literal["allocates-early"] = "allocates-early"
    caught_by = "builds-on-meta"

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.angles = torch.arange(context.context_length, device="cpu") * 0.5
        return made


class SharesRows(Wrong):
    """Add a little of the other rows to each row."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE + 0.3 * x_BTE.mean(dim=0, keepdim=True), forward)

    name: Literal["shares-rows"] = "shares-rows"
    runtime = Runtime
    caught_by = "rows-are-independent"
    also = (
        "no-future-leak",
        "window-counts-tokens",
        "backends-agree",
        "cache-reorders",
        "cache-joins",
        "documents-keep-apart",
        "padding-is-ignored",
        "uneven-prompts-cached",
        "cache-extracts",
    )


class CachesOneRow(Wrong):
    """Use the first row's cached values for all rows."""

    class State:
        def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
            offset, (k, v) = super().append(*new_BHTD)  # type: ignore[misc]
            return offset, (k, v[:1].expand_as(v))

    class Runtime(GroupedQueryAttention):
        def new_state(self, *args: Any) -> TokenState:
            made: TokenState = altered(super().new_state(*args), CachesOneRow.State)
            return made

    name: Literal["caches-one-row"] = "caches-one-row"
    runtime = Runtime
    caught_by = "rows-are-independent"
    also = (*DECODING, "cache-extracts")


class PaddingLeaks(Wrong):
    """Attend to padding."""

    class Runtime(GroupedQueryAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: int) -> Tensor:
            return super().score(q, k, v, blind(forward, left_padding_B=None), offset)

    name: Literal["padding-leaks"] = "padding-leaks"
    runtime = Runtime
    caught_by = "padding-is-ignored"
    also = ("cache-joins", "uneven-prompts-cached", "cache-extracts")


class PaddingLeaksLater(Wrong):
    """Attend to padding in single steps with a cache."""

    class Runtime(GroupedQueryAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: int) -> Tensor:
            seen = blind(forward, left_padding_B=None) if forward.states is not None and q.shape[2] == 1 else forward
            return super().score(q, k, v, seen, offset)

    name: Literal["padding-leaks-later"] = "padding-leaks-later"
    runtime = Runtime
    caught_by = "uneven-prompts-cached"
    also = ("static-cache", "cache-joins", "cache-extracts")


class DocumentsLeak(Wrong):
    """Attend to preceding documents."""

    class Runtime(GroupedQueryAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: int) -> Tensor:
            return super().score(q, k, v, blind(forward, documents_BT=None), offset)

    name: Literal["documents-leak"] = "documents-leak"
    runtime = Runtime
    caught_by = "documents-keep-apart"
    also = ("attention-weights",)


class CacheNotReordered(Wrong):
    """Cache that ignores reordering."""

    class State:
        buffers: list[Tensor]

        def reorder(self, rows_B: Tensor) -> None:
            super().reorder(torch.arange(len(rows_B)) % self.buffers[0].shape[0])  # type: ignore[misc]

    class Runtime(GroupedQueryAttention):
        def new_state(self, *args: Any) -> TokenState:
            made: TokenState = altered(super().new_state(*args), CacheNotReordered.State)
            return made

    name: Literal["cache-not-reordered"] = "cache-not-reordered"
    runtime = Runtime
    caught_by = "cache-reorders"
    also = ("cache-marks", "cache-joins")


class StoresOtherWeights(Wrong):
    """Store weights that differ from those used."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            out_BTE = super().forward(x_BTE, forward)
            if forward.weights is not None:
                forward.weights[self.layer, 0] = torch.full_like(forward.weights[self.layer, 0], 1 / x_BTE.shape[1])
            return out_BTE

    name: Literal["stores-other-weights"] = "stores-other-weights"
    runtime = Runtime
    caught_by = "attention-weights"


class StoresAcrossDocuments(Wrong):
    """Store weights on preceding documents."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            out_BTE = super().forward(x_BTE, forward)
            if forward.weights is not None and forward.documents_BT is not None:
                message = forward.weights[self.layer, 0]
                forward.weights[self.layer, 0] = (message + 0.1).tril()
            return out_BTE

    name: Literal["stores-across-documents"] = "stores-across-documents"
    runtime = Runtime
    caught_by = "attention-weights"


class StoresBeyondTheWindow(Wrong):
    """Store weights beyond the attention window."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            out_BTE = super().forward(x_BTE, forward)
            if forward.weights is not None and self.window is not None:
                forward.weights[self.layer, 0] = torch.full_like(forward.weights[self.layer, 0], 0.1).tril()
            return out_BTE

    name: Literal["stores-beyond-the-window"] = "stores-beyond-the-window"
    runtime = Runtime
    caught_by = "attention-weights"


class StoresTheMean(Wrong):
    """Store the mean over heads, without their dimension."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            out_BTE = super().forward(x_BTE, forward)
            if forward.weights is not None:
                forward.weights[self.layer, 0] = forward.weights[self.layer, 0].mean(dim=1)
            return out_BTE

    name: Literal["stores-the-mean"] = "stores-the-mean"
    runtime = Runtime
    caught_by = "attention-weights"


class StoresScores(Wrong):
    """Store the scores instead of the weights, infinite where masked."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            out_BTE = super().forward(x_BTE, forward)
            if forward.weights is not None:
                forward.weights[self.layer, 0] = forward.weights[self.layer, 0].log()
            return out_BTE

    name: Literal["stores-scores"] = "stores-scores"
    runtime = Runtime
    caught_by = "attention-weights"


class DeclaresTooLittleMemory(Wrong):
    """Declare the size of a cached token without its values."""

    class Runtime(GroupedQueryAttention):
        def state_bytes_per_token(self, dtype: torch.dtype) -> float:
            return super().state_bytes_per_token(dtype) / 2

    name: Literal["declares-too-little-memory"] = "declares-too-little-memory"
    runtime = Runtime
    caught_by = "state-size"


class AcceptsUnknownHook(Wrong):
    """Accept a hook that does not exist."""

    name: Literal["accepts-unknown-hook"] = "accepts-unknown-hook"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "turn"})
    caught_by = "accepts-known-hooks"


class MutableDefault(Wrong):
    """Compute with the length of a list that all instances share."""

    seen: ClassVar[list[int]] = []
    name: Literal["mutable-default"] = "mutable-default"
    runtime = BuildsByChance.Runtime
    caught_by = "same-seed-same-result"
    also = ("deep-copy", "state-dict", "resumes-after-steps")

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        self.seen.append(context.parts.index)
        made.gain = 1 + 0.1 * len(self.seen)  # type: ignore[attr-defined]
        return made


class MasksBeforeMixing(Wrong):
    """Mask scores with a large negative number before mixing the heads with learned weights (talking heads)."""

    class Runtime(GroupedQueryAttention):
        def initial(self) -> Any:
            return {**super().initial(), "mix": lambda shape, generator: torch.eye(*shape)}

        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: int, *terms: Tensor | None) -> Tensor:
            mask = forward.mask(offset, k.shape[2], window=self.window).dense()
            scores_BHTS = (q @ k.mT * self.scale).masked_fill(~mask, -1e9)
            mixed_BHTS = torch.einsum("gh,bhts->bgts", self.mix.to(scores_BHTS.dtype), scores_BHTS)
            return mixed_BHTS.softmax(-1) @ v

    name: Literal["masks-before-mixing"] = "masks-before-mixing"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})
    runtime = Runtime
    caught_by = "no-future-leak"
    also = ("documents-keep-apart", "padding-is-ignored")

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.mix = nn.Parameter(torch.zeros(2, 2))
        return made


class DependsOnPosition(Wrong):
    """Output that depends on the token's position, even without a position component."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward) * (1 + 0.05 * forward.positions[..., None].to(x_BTE.dtype))

    name: Literal["attention-depends-on-position"] = "attention-depends-on-position"
    runtime = Runtime
    caught_by = "distance-only"


class WritesToWeights(Wrong):
    """Scale the output's weights in the constructor, which the initialization overwrites."""

    name: Literal["writes-to-weights"] = "writes-to-weights"
    caught_by = "keeps-no-constructed-values"

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        nn.init.constant_(made.output.weight, 0.25)
        return made


class GivesValues(Wrong):
    """Construct a bias of 0.5 without declaring it, so that it is initialized as zero."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward) + self.extra_bias  # type: ignore[operator]

    name: Literal["gives-values"] = "gives-values"
    runtime = Runtime
    caught_by = "keeps-no-constructed-values"

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made = super().build(context)
        made.extra_bias = nn.Parameter(torch.full((context.d_model,), 0.5))
        return made
