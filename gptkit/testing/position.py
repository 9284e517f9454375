"""Checks of positions and of rotary scalings.

Shapes: B batch, H heads, T queries, S keys, D head size, R rotated features.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.nn.position import Position
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.subject import D_HEAD, D_MODEL, Subject, stirred

__all__ = ["checks", "scaling_checks"]

checks = Checks()
scaling_checks = Checks()

HOOKS = ("embed", "rotate", "bias", "content_bias", "value_bias")
FAR = 1_000_000
"""Position to check without a limit: beyond the length of any text."""
HEADS = HeadShape(n_heads=2, n_kv_heads=2, d_head=D_HEAD)


def _relative(subject: Subject) -> Position:
    return cast("Position", subject.module(heads=HEADS))


@checks.add("hooks-are-declared", "Only hooks in `uses` are applied, and attentions accept or reject positions by them.")
def hooks_are_declared(subject: Subject) -> None:
    uses = subject.spec.uses
    unknown = sorted(uses - {*HOOKS, "rotated_width"})
    expect(not unknown, f"uses {', '.join(unknown)}; a position has the hooks {', '.join(HOOKS)}")
    relative = _relative(subject) if _builds(subject) else None
    parts: list[tuple[nn.Module | None, tuple[str, ...], str]] = [
        (subject.resolved.build_embedding(subject.context), ("embed",), "build_embedding"),
        (relative, HOOKS[1:], "build"),
    ]
    for module, hooks, maker in parts:
        for hook in hooks:
            has = module is not None and getattr(type(module), hook, None) is not getattr(Position, hook)
            expect(not has or hook in uses, f"what {maker} gives overrides {hook}, which `uses` does not name")
            expect(has or hook not in uses, f"`uses` names {hook}, which what {maker} gives does not override")
    differs = subject.resolved.rotated_width(D_HEAD) != D_HEAD
    expect(differs == ("rotated_width" in uses), "`uses` must name rotated_width exactly if it differs from the head size")
    if "rotate" in uses and relative is not None:
        q_BHTD = torch.randn(1, 2, 3, D_HEAD, dtype=torch.float64)
        rotated = relative.rotate(q_BHTD, q_BHTD, relative.prepare(torch.arange(3)))
        expected = (1, 2, 3, subject.resolved.rotated_width(D_HEAD))
        for name, turned in zip(("queries", "keys"), rotated, strict=True):
            expect(turned.shape == expected, f"rotate gives {name} of shape {tuple(turned.shape)}, not {expected}")


def _builds(subject: Subject) -> bool:
    """Return whether the spec defines a relative part, declared or not."""
    return type(subject.resolved).build is not PositionSpec.build


@checks.add("score-function", "Flex attention takes the bias as a function of one score, which must give the same term.")
@torch.no_grad()
def score_function(subject: Subject) -> None:
    if not subject.spec.score_function:
        skip("it declares no score function")
    expect("bias" in subject.spec.uses, "it declares a score function, and `uses` names no bias")
    position = _relative(subject)
    for positions in (torch.arange(6), torch.stack((torch.arange(6), torch.arange(6) - 2))):
        bias = position.bias(positions[..., 2:], positions)
        expect(bias is not None, "bias returned nothing")
        assert bias is not None
        add = position.score_mod(positions[..., 2:], positions)
        rows = torch.arange(positions.shape[0] if positions.dim() == 2 else 1)
        row, head = rows[:, None, None, None], torch.arange(2)[:, None, None]
        query, key = torch.arange(4)[:, None], torch.arange(6)
        term = add(torch.zeros((), dtype=torch.float64), row, head, query, key)
        shape = (len(rows), 2, 4, 6)
        seen = (positions[..., None, :] <= positions[..., 2:, None]).expand(len(rows), 4, 6)[:, None]
        one, other = term.expand(shape) * seen, bias.expand(shape) * seen
        same(one, other.to(one.dtype), "the score function gives another term than bias", 1e-5)


@checks.add(
    "distance-only", "Texts begin at any offset, so a relative position must depend on the distance of two tokens only."
)
@torch.no_grad()
def distance_only(subject: Subject) -> None:
    spec = subject.resolved
    if not spec.uses - {"embed"}:
        skip("it has no relative part")
    if spec.depends_on_position:
        skip("it declares that it depends on absolute positions")
    if spec.depends_on_length:
        skip("it declares that it depends on the length of the text")
    position = _relative(subject)
    generator = torch.Generator().manual_seed(0)
    q_BHTD, k_BHTD = torch.randn(2, 1, 2, 6, D_HEAD, generator=generator, dtype=torch.float64)
    weights_BHTS = torch.rand(1, 2, 6, 6, generator=generator, dtype=torch.float64).tril()

    def terms(positions: Tensor) -> dict[str, Tensor | None]:
        q, k = q_BHTD, k_BHTD
        if "rotate" in spec.uses:
            q, k = position.rotate(q, k, position.prepare(positions))
        return {
            "rotate": (q @ k.mT).tril(),
            "bias": position.bias(positions, positions),
            "content_bias": position.content_bias(q_BHTD, k_BHTD, positions, positions),
            "value_bias": position.value_bias(weights_BHTS, positions, positions),
        }

    here = torch.arange(6)
    first = terms(here)
    for shift in (1, 17):
        for hook, moved in terms(here + shift).items():
            original = first[hook]
            if original is None or moved is None:
                continue
            causal = hook in ("bias", "content_bias")
            one, other = (moved.tril(), original.tril()) if causal else (moved, original)
            same(one, other, f"{hook} changes when both tokens are shifted by {shift}", 1e-4)


@checks.add("finite-far-out", "Powers and products of large positions may overflow, which short texts do not show.")
@torch.no_grad()
def finite_far_out(subject: Subject) -> None:
    spec = subject.resolved
    limit = spec.max_positions(subject.context)
    last = FAR if limit is None else limit - 1
    positions = torch.tensor(sorted({0, last // 2, max(last - 1, 0), last}))
    n = len(positions)
    generator = torch.Generator().manual_seed(0)
    results: dict[str, Tensor | None] = {}
    embedding = spec.build_embedding(subject.context)
    if embedding is not None:
        x_BTE = torch.randn(1, n, D_MODEL, generator=generator)
        results["embed"] = stirred(subject.started(embedding)).eval().embed(x_BTE, positions)
    if spec.uses - {"embed"}:
        position = cast("Position", stirred(subject.fresh(heads=HEADS)).eval())
        q_BHTD, k_BHTD = torch.randn(2, 1, 2, n, D_HEAD, generator=generator)
        weights_BHTS = torch.rand(1, 2, n, n, generator=generator).tril()
        if "rotate" in spec.uses:
            q_turned, k_turned = position.rotate(q_BHTD, k_BHTD, position.prepare(positions))
            results["rotate"] = (q_turned @ k_turned.mT).tril()
        results |= {
            "bias": position.bias(positions, positions),
            "content_bias": position.content_bias(q_BHTD, k_BHTD, positions, positions),
            "value_bias": position.value_bias(weights_BHTS, positions, positions),
        }
    for hook, result in results.items():
        if result is None:
            continue
        kept = result.tril() if hook in ("bias", "content_bias") else result  # later keys are hidden anyway
        expect(kept.isfinite().all(), f"{hook} is not finite in fp32 for positions {positions.tolist()}")


@scaling_checks.add(
    "frequencies", "Rotary positions rotate each pair of features by these frequencies, in radians per token."
)
def frequencies(subject: Subject) -> None:
    spec = cast("RotaryScalingSpec", subject.resolved)
    given = spec.frequencies(10000.0, D_HEAD, subject.context)
    expect(given.shape == (D_HEAD // 2,), f"for {D_HEAD} features the frequencies have shape {tuple(given.shape)}")
    expect(given.dtype == torch.float32, f"the frequencies are {given.dtype}, not fp32")
    valid = bool(given.isfinite().all() and (given >= 0).all() and given[0] > 0)
    expect(valid, f"the frequencies are {given.tolist()}; the first should be above 0, the others at least 0")
    again = spec.frequencies(10000.0, D_HEAD, subject.context)
    expect(torch.equal(given, again), "two calls return different frequencies")
    amplitude = spec.amplitude(subject.context)
    expect(0 < amplitude < float("inf"), f"the amplitude is {amplitude}")


@scaling_checks.add("lengths", "A cache is kept while the frequencies are unchanged, so changes must be declared.")
def lengths(subject: Subject) -> None:
    spec, context = cast("RotaryScalingSpec", subject.resolved), subject.context
    if not spec.depends_on_length:
        skip("it does not depend on the length of the text")
    some = [1, 8, 12, 24, 25, 48, 49, 96]
    together = spec.at_length(10000.0, D_HEAD, context, torch.tensor(some))
    shape = tuple(together.shape)
    expect(shape == (len(some), D_HEAD // 2), f"for {len(some)} lengths the frequencies have shape {shape}")
    for index, length in enumerate(some):
        alone = spec.at_length(10000.0, D_HEAD, context, torch.tensor([length]))
        same(together[index : index + 1], alone, f"frequencies for {length} tokens depend on the other rows' lengths")
        for other in range(index):
            if not spec.changes_between(some[other], length, context):
                what = f"changes_between({some[other]}, {length}) is false, but the frequencies change"
                same(together[index], together[other], what)
