"""Routers: the experts of some tokens, and the load of each expert.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

import torch

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.heat import Heat
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.nn.forward import Forward
from gptkit.testing.subject import VOCAB

__all__ = ["draw"]

TOKENS, SHOWN, EXPERTS = 2048, 12, 8


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the weights of a few tokens' experts, and the load over many tokens."""
    subject = first(cls, registry)
    module = subject.fresh(n_experts=EXPERTS).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
    x_NE = torch.randn(TOKENS, subject.context.d_model, generator=generator)
    ids_1N = torch.randint(VOCAB, (1, TOKENS), generator=generator)
    experts_NK, weights_NK = module(x_NE, Forward(ids_1N))
    weights_NX = torch.zeros(TOKENS, EXPERTS).scatter(-1, experts_NK, weights_NK.float())
    load_X = experts_NK.flatten().bincount(minlength=EXPERTS) / TOKENS
    names = [str(index + 1) for index in range(EXPERTS)]
    n_chosen = experts_NK.shape[-1]
    heat = Heat(
        "weights of the chosen experts",
        "expert",
        "token",
        [[value or None for value in row] for row in weights_NX[:SHOWN].tolist()],
        f"Each token has {n_chosen} experts; the weights of the first token are "
        f"{', '.join(f'{value:.2f}' for value in weights_NK[0].tolist())}.",
        row_names=[str(index + 1) for index in range(SHOWN)],
        column_names=names,
    )
    bars = Series(list(enumerate(load_X.tolist())), "", 1, "bars")
    mean = Series([(0, n_chosen / EXPERTS), (EXPERTS - 1, n_chosen / EXPERTS)], "equal load", 2, "dashed")
    described = f"The load is from {load_X.min():.2f} to {load_X.max():.2f}; {n_chosen / EXPERTS:g} would be equal."
    load = Plot("load of each expert", "expert", "share of tokens", [bars, mean], described, names=names)
    caption = f"{EXPERTS} experts, {TOKENS:,} random tokens, random weights: before training, nothing has balanced the load."
    return Figure([heat, load], caption)
