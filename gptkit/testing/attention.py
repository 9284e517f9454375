"""Checks of attentions only.

Shapes: B batch, H heads, T tokens, S keys.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError, SpecError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.model.gpt import GPT
from gptkit.nn.attention.backends.eager import EagerBackend
from gptkit.nn.attention.base import Attention
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.position import Position
from gptkit.testing.attention_backend import computes_the_same
from gptkit.testing.check import Checks, differ, expect, same, skip
from gptkit.testing.subject import CONTEXT_LENGTH, D_MODEL, VOCAB, Subject, stirred, stirred_matrices, token_ids
from gptkit.testing.tokens import reach

__all__ = ["checks"]

checks = Checks()

HOOKS = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})


@checks.add(
    "accepts-known-hooks", "Positions and attentions are matched by the accepted hooks; an unknown hook matches none."
)
def accepts_known_hooks(subject: Subject) -> None:
    unknown = sorted(subject.spec.accepts - HOOKS)
    expect(not unknown, f"accepts {', '.join(unknown)}; a position has the hooks {', '.join(sorted(HOOKS))}")
    modules = [module for module in subject.make().modules() if isinstance(module, Attention)]
    expect(modules, "build returned no gptkit.nn.attention.base.Attention, so the model cannot cache its state")


@torch.no_grad()
def _softened(model: GPT) -> GPT:
    """Scale down attention inputs, so that every token gets some weight, even without projections or scaling."""
    for name, parameter in stirred(model).named_parameters():
        if name.endswith("attention_norm.weight"):
            parameter.mul_(0.3)
    return model.double().eval()


@checks.add("applies-positions", "An attention that accepts a position but ignores it trains a model without word order.")
@torch.no_grad()
def applies_positions(subject: Subject) -> None:
    names = [name for name in subject.companions() if name not in ("none", "learned")]
    if not names:
        skip("it accepts no relative position")
    plain, ids = _softened(subject.make("none")), token_ids(1, 12)
    without = plain(ids).logits
    for name in names:
        model = _softened(subject.make(name))
        model.load_state_dict(plain.state_dict(), strict=False)
        changed = differ(model(ids).logits, without).any()
        expect(changed, f"with position {name!r} the logits are the same as without a position")


class _Doubling(Position):
    """Double the queries, and count calls."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[Tensor] = []
        self.rotated = 0

    def prepare(self, positions: Tensor) -> Tensor:
        self.prepared.append(positions)
        return positions

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Tensor) -> tuple[Tensor, Tensor]:
        self.rotated += 1
        return q_BHTD * 2, k_BKTD


class _DoublingSpec(PositionSpec):
    """Position whose calls are counted."""

    name: Literal["doubling"] = "doubling"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return _Doubling()


@checks.add("rotates-once", "Queries and keys must be rotated exactly once, by their own positions.")
@torch.no_grad()
def rotates_once(subject: Subject) -> None:
    if "rotate" not in subject.spec.accepts:
        skip("it accepts no position that rotates")
    model = subject.make("none", n_layers=1, position=_DoublingSpec()).eval()
    position = next((module for module in model.modules() if isinstance(module, _Doubling)), None)
    if position is None:
        expect(False, "it accepts positions that rotate, but does not build context.parts.position")
        return
    cache = model.new_cache(1)
    for length, first in ((5, 0), (1, 5)):
        position.prepared.clear()
        position.rotated = 0
        model(token_ids(1, length), cache=cache)
        expect(position.rotated == 1, f"`rotate` was called {position.rotated} times in one forward pass of one layer")
        wanted = list(range(first, first + length))
        given = [positions.flatten().tolist() for positions in position.prepared]
        expect(all(positions == wanted for positions in given), f"`prepare` received positions {given}, not {wanted}")


class _WideningPosition(Position):
    """Append to each query and key its first two features, turned by the position."""

    def prepare(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None].double() / 3
        angles = angles[:, None] if positions.dim() == 2 else angles
        return angles.cos(), angles.sin()

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self._widened(q_BHTD, *prepared), self._widened(k_BKTD, *prepared)

    def _widened(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x[..., :1], x[..., 1:2]
        return torch.cat((x, a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


class _WideningSpec(PositionSpec):
    """Position that gives queries and keys two more features."""

    name: Literal["widening"] = "widening"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width"})

    def rotated_width(self, d_head: int) -> int:
        return d_head + 2

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return _WideningPosition()


@checks.add(
    "takes-wider-queries",
    "If `rotated_width` is accepted, a position may change the width of queries and keys, and so of the cache.",
)
@torch.no_grad()
def takes_wider_queries(subject: Subject) -> None:
    if "rotated_width" not in subject.spec.accepts:
        skip("it does not accept a position that changes the width of queries and keys")
    try:
        subject.read(subject.layout("none", position=_WideningSpec()))
    except SpecError as error:
        skip(f"as it is configured, it refuses such a position: {error.message}")
    model = _softened(subject.make("none", position=_WideningSpec()))
    ids = token_ids(1, 12)
    full = model(ids).logits
    expect(
        differ(full, _softened(subject.make("none"))(ids).logits).any(), "the features that the position adds change nothing"
    )
    cache = model.new_cache(1)
    for at, piece in zip((0, 6, 7), torch.split(ids, [6, 1, 5], dim=1), strict=True):
        step = model(piece, cache=cache).logits
        expected = full[:, at : at + piece.shape[1]]
        same(
            step,
            expected,
            f"with a position that adds features to queries, token {at} with a cache gives other logits",
        )


@checks.add("distance-only", "Texts are cut anywhere, so only the order and the distance of tokens may count.")
@torch.no_grad()
def distance_only(subject: Subject) -> None:
    if subject.spec.depends_on_position:
        skip("it declares that it depends on absolute positions")
    ids = token_ids(2, 10)
    for name in subject.companions():
        if subject.other("position", name).depends_on_position:
            continue
        # Norms keep their initial weights: one after a rotation is invariant to it with equal weights only.
        model = stirred_matrices(subject.make(name)).double().eval()
        attention = next((module for module in model.modules() if isinstance(module, Attention)), None)
        if attention is None:
            skip("build returned no gptkit.nn.attention.base.Attention")
        generator = torch.Generator().manual_seed(0)
        x_BTE = torch.randn(*ids.shape, D_MODEL, generator=generator, dtype=torch.float64)
        here = attention(x_BTE, Forward(ids))
        for shift in (1, 17):
            moved = attention(x_BTE, Forward(ids, offset=shift))
            same(moved, here, f"with position {name!r} its output changes when all tokens are shifted by {shift}")


@checks.add("window-counts-tokens", "An attention window of n tokens is the current token and the n - 1 preceding ones.")
@torch.no_grad()
def window_counts_tokens(subject: Subject) -> None:
    if subject.windowed is None:
        skip("it has no field `window`")
    model = _softened(subject.make("none", window=True, n_layers=1))
    # The reach without an attention window may be limited as well, by chunks for example.
    wide = _softened(subject.make("none", n_layers=1, attention=subject.spec.replace(window=CONTEXT_LENGTH)))
    for at, ((first, last), (_, furthest)) in enumerate(zip(reach(model, 14), reach(wide, 14), strict=True)):
        wanted = min(at + 4 + subject.spec.mixed_tokens, furthest)
        seen = f"with window 5, token {at} reaches tokens {first} to {last}, not {at} to {wanted}"
        name = "; if it limits only a part of what is combined, give the field another name" if last > wanted else ""
        expect((first, last) == (at, wanted), f"{seen}{name}")


@checks.add("attention-weights", "Plots show the weights that the forward pass keeps; a weight on a masked token misleads.")
@torch.no_grad()
def attention_weights(subject: Subject) -> None:
    length = 10
    ids, places = token_ids(2, length), torch.arange(length)
    back_TS = places[:, None] - places
    borders_BT = torch.stack((places >= 4, places >= 7)).long()
    for named, model in subject.models():
        window = 5 if named == "with window 5" else length
        for documents_BT in (None, borders_BT):
            where = named if documents_BT is None else f"{named}, two documents in each row"
            out = model(ids, documents_BT=documents_BT, keep_weights=True)
            plain = model(ids, documents_BT=documents_BT)
            same(out.logits, plain.logits, f"{where}, keeping the weights changes the logits")
            if not out.weights:
                skip("it passes no attention weights to forward.keep_weights")
            layers = sorted({layer for layer, _ in out.weights})
            expect(layers == [0, 1], f"{where}, weights are stored for layers {layers}, not 0 and 1")
            hidden_BTS = ((back_TS < 0) | (back_TS >= window)).expand(2, -1, -1)
            if documents_BT is not None:
                hidden_BTS = hidden_BTS | (documents_BT[:, :, None] != documents_BT[:, None, :])
            for weights_BHTS in out.weights.values():
                _must_be_weights(weights_BHTS, hidden_BTS, where)


def _must_be_weights(weights_BHTS: Tensor, hidden_BTS: Tensor, where: str) -> None:
    """Check shape, finiteness, and zeros where masked; not sums or signs, since not every attention is a softmax."""
    shape, (rows, queries, keys) = tuple(weights_BHTS.shape), hidden_BTS.shape
    fits = len(shape) == 4 and shape[0] == rows and shape[1] > 0 and shape[2:] == (queries, keys)
    expect(fits, f"{where}, weights have shape {shape}, not (B, H, T, S): ({rows}, heads, {queries}, {keys})")
    expect(weights_BHTS.isfinite().all(), f"{where}, weights are not finite")
    wrong = (weights_BHTS != 0) & hidden_BTS[:, None]
    if wrong.any():
        row, head, query, key = wrong.nonzero()[0].tolist()
        what = (
            f"query {query} of row {row}, head {head}, gives key {key} the weight {weights_BHTS[row, head, query, key]:.6g}"
        )
        expect(False, f"{where}, {what}, which is masked; stored weights must be zero where masked")


def _softmax_attention(model: GPT) -> SoftmaxAttention:
    attention = next(iter(model.attentions()), None)
    if not isinstance(attention, SoftmaxAttention):
        skip("it is not a SoftmaxAttention, so no attention backend computes it")
    return attention


@checks.add("score-features", "Backends are chosen and refused by the features that a spec declares, before it is built.")
def score_features(subject: Subject) -> None:
    for companion in subject.companions():
        model = subject.model(companion)
        actual = _softmax_attention(model).features
        layer = model.spec.layer_specs()[0]
        declared = layer.attention.score_features(model.spec.context(VOCAB, layer=layer.parts(0)))
        if declared is None:
            skip("it declares no features, so only building it can say")
        names = [each.name for each in fields(actual) if getattr(actual, each.name) != getattr(declared, each.name)]
        stated = ", ".join(f"{name}={getattr(declared, name)}" for name in names)
        result = ", ".join(f"{name}={getattr(actual, name)}" for name in names)
        expect(not names, f"with position {companion!r}, score_features declares {stated}; what is built has {result}")


@checks.add("backends-agree", "Another `model.attention_backend` makes a model faster, and must compute the same.")
def backends_agree(subject: Subject) -> None:
    _softmax_attention(subject.model())
    variants = [(f"with position {name!r}", name, False) for name in dict.fromkeys(("none", subject.companions()[-1]))]
    if subject.windowed is not None:
        variants.append(("with window 5", subject.companions()[-1], True))
    for what, companion, window in variants:
        for backend in subject.registry.names("attention-backend"):
            if backend in ("auto", "eager"):
                continue
            layout = subject.layout(companion, window=window, attention_backend=backend)
            try:
                model = stirred(GPT(subject.read(layout), VOCAB)).eval()
            except GptkitError:
                continue  # refused, as the features of the layer say
            eager = copy.deepcopy(model)
            for module in eager.modules():
                if isinstance(module, SoftmaxAttention):
                    module.backend, module.backend_name = EagerBackend(), "eager"
            computes_the_same(model, eager, f"{what}, backend {backend!r}")


@checks.add("state-size", "The memory of a cache is planned from the declared state size per token.")
def state_size(subject: Subject) -> None:
    model = subject.make("none")
    declared = sum(module.state_bytes_per_token(torch.float32) for module in model.attentions())
    short, long = (model.new_cache(2, capacity=capacity).bytes for capacity in (512, 768))
    grown = (long - short) / (2 * 256)  # 0 if an attention window or a recurrence bounds the state
    expect(grown in (0, declared), f"a token uses {grown:g} bytes of cache, but state_bytes_per_token returns {declared:g}")
