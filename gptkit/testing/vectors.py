"""Checks of components that process each vector separately: norms, activations, feed-forwards, routers.

Shapes: B batch, T tokens, D features, N tokens of all rows, K experts chosen for a token.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from gptkit.nn.router import Router
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.subject import D_HEAD, D_MODEL, Subject, token_ids

__all__ = ["activation_checks", "checks", "norm_checks", "router_checks"]

checks = Checks()
norm_checks = Checks()
activation_checks = Checks()
router_checks = Checks()

B, T = 3, 5


def _function(subject: Subject, dim: int = D_MODEL) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the module as a function of vectors and token ids."""
    if subject.kind == "norm":
        norm = subject.module(dim=dim)
        return lambda x, ids: norm(x)
    module = subject.module()
    if subject.kind == "activation":
        return lambda x, ids: module(x)
    return lambda x, ids: module(x, subject.forward(ids))


def _input(dim: int = D_MODEL) -> tuple[Tensor, Tensor]:
    x_BTD = torch.randn(B, T, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 3 * x_BTD + 0.5, token_ids(B, T)


@checks.add("position-wise", "Masks do not apply here, so dependence on other tokens violates causality and mixes texts.")
@torch.no_grad()
def position_wise(subject: Subject) -> None:
    function, (x_BTD, ids) = _function(subject), _input()
    whole = function(x_BTD.clone(), ids)
    expect(whole.shape == x_BTD.shape, f"{tuple(x_BTD.shape)} became {tuple(whole.shape)}; the shape must stay")
    for row in range(B):
        for at in range(T):
            place = slice(row, row + 1), slice(at, at + 1)
            alone = function(x_BTD[place].clone(), ids[place])
            same(whole[place], alone, f"the vector of token {at} in row {row} gives another result than by itself")


@checks.add(
    "leaves-input-alone", "Blocks use the input again for the residual connection, so it must not be changed in place."
)
@torch.no_grad()
def leaves_input_alone(subject: Subject) -> None:
    function, (x_BTD, ids) = _function(subject), _input()
    before = x_BTD.clone()
    function(x_BTD, ids)
    same(x_BTD, before, "the input was changed in place")


@norm_checks.add("any-shape", "Norms are applied to the residual stream, to heads and to latents, with any leading shape.")
@torch.no_grad()
def any_shape(subject: Subject) -> None:
    norm = subject.module(dim=D_HEAD)
    x = torch.randn(2, 3, 4, D_HEAD, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = norm(x.clone())
    expect(whole.shape == x.shape, f"{tuple(x.shape)} became {tuple(whole.shape)}; the shape must stay")
    same(whole.flatten(0, 2), norm(x.flatten(0, 2)), "vectors in four dimensions give other results than in two")


@norm_checks.add("zero-vector", "Padding and dead features give zero vectors, and one NaN makes the whole output NaN.")
@torch.no_grad()
def zero_vector(subject: Subject) -> None:
    norm = subject.fresh(dim=D_MODEL)
    for dtype in (torch.float32, torch.bfloat16):
        out = norm.to(dtype)(torch.zeros(2, D_MODEL, dtype=dtype))
        expect(out.isfinite().all(), f"a vector of zeros in {dtype} gives {out.flatten()[:3].tolist()}…")
        expect(out.dtype == dtype, f"{dtype} became {out.dtype}; return the input's dtype")


@activation_checks.add(
    "elementwise", "Feed-forwards apply activations to packed features, so every number must be independent."
)
@torch.no_grad()
def elementwise(subject: Subject) -> None:
    activation = subject.module()
    x = torch.linspace(-6, 6, 96, dtype=torch.float64)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    whole = activation(x)
    expect(whole.shape == x.shape, f"{tuple(x.shape)} became {tuple(whole.shape)}; the shape must stay")
    same(activation(x[order].view(4, 24)).flatten(), whole[order], "a number's result depends on the numbers beside it")


@activation_checks.add("external-names", "An export has this name, by which other programs select the function.")
@torch.no_grad()
def external_names(subject: Subject) -> None:
    names: tuple[str, ...] = subject.spec.external_names
    if not names:
        skip("it has no name in configurations of external models")
    try:
        known = importlib.import_module("transformers.activations").ACT2FN
    except ImportError:
        skip("transformers, which defines the names, is not installed")
    activation, x = subject.module(), torch.linspace(-6, 6, 97, dtype=torch.float64)
    for name in names:
        # What has weights of its own is compared with the model that it belongs to, by the checks of families.
        if name not in known or any(True for _ in activation.parameters()):
            continue
        same(activation(x), known[name](x), f"transformers computes another function as {name!r}", 1e-5)


N_EXPERTS = 8


def _routed(subject: Subject) -> tuple[Router, Tensor, Tensor]:
    """Return a router, vectors (N, D), and their token ids (1, N)."""
    router = cast("Router", subject.module(n_experts=N_EXPERTS))
    x_ND = torch.randn(12, D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return router, x_ND, token_ids(1, 12)


@router_checks.add(
    "chooses-experts", "Experts are found by number and joined by weight, so a wrong number is an index error."
)
@torch.no_grad()
def chooses_experts(subject: Subject) -> None:
    router, x_ND, ids = _routed(subject)
    experts_NK, weights_NK = router(x_ND, subject.forward(ids))
    shapes = f"experts have shape {tuple(experts_NK.shape)} and weights {tuple(weights_NK.shape)}"
    expect(experts_NK.shape == weights_NK.shape and experts_NK.shape[:1] == (12,), f"for 12 tokens {shapes}")
    expect(not experts_NK.is_floating_point(), f"experts are {experts_NK.dtype}; whole numbers belong")
    low, high = int(experts_NK.min()), int(experts_NK.max())
    expect(low >= 0 and high < N_EXPERTS, f"of {N_EXPERTS} experts it chooses numbers {low} to {high}")
    twice = [row for row in experts_NK.tolist() if len(set(row)) < len(row)]
    expect(not twice, f"a token is routed to experts {twice[0] if twice else ''}, one of them twice")
    expect(weights_NK.dtype == x_ND.dtype, f"weights are {weights_NK.dtype} for vectors in {x_ND.dtype}")
    expect(weights_NK.isfinite().all(), "weights are not finite")


@router_checks.add(
    "routes-token-by-token", "A choice that depends on other tokens changes with the text's continuation or batch."
)
@torch.no_grad()
def routes_token_by_token(subject: Subject) -> None:
    router, x_ND, ids = _routed(subject)
    experts_NK, weights_NK = router(x_ND, subject.forward(ids))
    for at in range(12):
        experts_1K, weights_1K = router(x_ND[at : at + 1], subject.forward(ids[:, at : at + 1]))
        chosen = experts_NK[at].tolist()
        expect(
            chosen == experts_1K[0].tolist(),
            f"token {at} is routed to experts {chosen}, but alone to {experts_1K[0].tolist()}",
        )
        same(weights_1K[0], weights_NK[at], f"the weights of token {at} depend on the other tokens")


@router_checks.add("padding-does-not-count", "Auxiliary losses must exclude padding.")
def padding_does_not_count(subject: Subject) -> None:
    router, x_ND, ids = _routed(subject)
    router.train()
    losses = []
    for filler in (0.0, 5.0):
        padded_ND = torch.cat((torch.full((3, D_MODEL), filler, dtype=torch.float64), x_ND))
        forward = subject.forward(torch.cat((ids[:, :3], ids), dim=1))
        router(padded_ND, forward, torch.tensor([False] * 3 + [True] * 12))
        losses.append({name: loss.detach() for name, loss in forward.losses.items()})
    for name, loss in losses[0].items():
        same(losses[1][name], loss, f"the loss {name!r} depends on what padding holds")
