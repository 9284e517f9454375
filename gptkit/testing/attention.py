"""Checks of attentions only.

Shapes: B batch, H heads, T tokens, S keys.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from gptkit.kinds.attention import Attention
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, Position, PositionSpec
from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, differ, expect, same, skip
from gptkit.testing.subject import CONTEXT_LENGTH, Subject, stirred, token_ids
from gptkit.testing.tokens import reach

__all__ = ["checks"]

checks = Checks()

HOOKS = frozenset({"rotate", "bias", "content_bias", "value_bias"})


@checks.add(
    "accepts-known-hooks", "Positions and attentions are matched by what these accept; an unknown word fits nothing."
)
def accepts_known_hooks(subject: Subject) -> None:
    unknown = sorted(subject.spec.accepts - HOOKS)
    expect(not unknown, f"accepts {', '.join(unknown)}; a position has the hooks {', '.join(sorted(HOOKS))}")
    modules = [module for module in subject.make().modules() if isinstance(module, Attention)]
    expect(modules, "build gave no gptkit.kinds.attention.Attention, so the model cannot keep its state")


@torch.no_grad()
def _softened(model: GPT) -> GPT:
    """Small inputs for attention, so that even dot products without weights or scale leave every token its share."""
    for name, parameter in stirred(model).named_parameters():
        if name.endswith("attention_norm.weight"):
            parameter.mul_(0.3)
    return model.double().eval()


@checks.add("applies-positions", "An attention that accepts a position and ignores it trains a model that knows no order.")
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
        expect(changed, f"with position {name!r} it gives the very logits that it gives without any")


class _Doubling(Position):
    """Doubles the queries, and counts its calls."""

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
    """A position that is easily counted."""

    name: Literal["doubling"] = "doubling"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return _Doubling()

    def describe(self) -> str:
        return "doubling"


@checks.add("rotates-once", "Queries and keys that are turned twice, or by other positions, are not what was asked for.")
@torch.no_grad()
def rotates_once(subject: Subject) -> None:
    if "rotate" not in subject.spec.accepts:
        skip("it accepts no position that rotates")
    model = subject.make("none", n_layers=1, position=_DoublingSpec()).eval()
    position = next((module for module in model.modules() if isinstance(module, _Doubling)), None)
    if position is None:
        expect(False, "it accepts positions that rotate, and does not build context.parts.position")
        return
    cache = model.new_cache(1)
    for length, first in ((5, 0), (1, 5)):
        position.prepared.clear()
        position.rotated = 0
        model(token_ids(1, length), cache=cache)
        expect(position.rotated == 1, f"`rotate` was called {position.rotated} times in one forward pass of one layer")
        wanted = list(range(first, first + length))
        given = [positions.flatten().tolist() for positions in position.prepared]
        expect(all(positions == wanted for positions in given), f"`prepare` was given positions {given}, not {wanted}")


@checks.add("window-counts-tokens", "A window of n tokens is the current token and the n - 1 before it, in every attention.")
@torch.no_grad()
def window_counts_tokens(subject: Subject) -> None:
    if subject.windowed is None:
        skip("it has no field `window`")
    model = _softened(subject.make("none", window=True, n_layers=1))
    # What it reaches without a window: chunks, say, may end earlier.
    wide = _softened(subject.make("none", n_layers=1, attention=subject.spec.replace(window=CONTEXT_LENGTH)))
    for at, ((first, last), (_, furthest)) in enumerate(zip(reach(model, 14), reach(wide, 14), strict=True)):
        wanted = min(at + 4, furthest)
        seen = f"with window 5, token {at} reaches tokens {first} to {last}, not {at} to {wanted}"
        expect((first, last) == (at, wanted), seen)


@checks.add("weights-are-told", "Plots show the weights that the forward pass keeps, so they must be the real ones.")
@torch.no_grad()
def weights_are_told(subject: Subject) -> None:
    length = 10
    ids = token_ids(2, length)
    for named, model in subject.models():
        out = model(ids, keep_weights=True)
        same(out.logits, model(ids).logits, f"{named}, keeping the weights changes the logits")
        if not out.weights:
            skip("it has no attention weights")
        expect(sorted(out.weights) == [0, 1], f"{named}, weights are filed under layers {sorted(out.weights)}, not 0 and 1")
        for weights_BHTS in out.weights.values():
            shape = tuple(weights_BHTS.shape)
            square = len(shape) == 4 and shape[0] == 2 and shape[2:] == (length, length)
            expect(square, f"{named}, weights have shape {shape}")
            expect(not weights_BHTS.triu(1).any(), f"{named}, a weight on a later token is not zero")
            total = float(weights_BHTS.sum(-1).max())
            share = total < 1 + 1e-5 and bool((weights_BHTS >= 0).all())
            expect(share, f"{named}, weights of a query add up to {total:.6g}, or are below 0")


@checks.add("memory-is-told", "The memory of a cache is planned from what an attention says that a token costs.")
def memory_is_told(subject: Subject) -> None:
    model = subject.make("none")
    told = sum(module.state_bytes_per_token(torch.float32) for module in model.attentions())
    short, long = (model.new_cache(2, capacity=capacity).bytes for capacity in (512, 768))
    grown = (long - short) / (2 * 256)  # 0 where a window or a recurrence keeps it from growing
    expect(grown in (0, told), f"a token costs {grown:g} bytes of cache, and state_bytes_per_token says {told:g}")
