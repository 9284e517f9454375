"""Attentions: which tokens each token reads.

Shapes: B batch, H heads, T queries, S keys, E model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure, Panel
from gptkit.docs.figures.heat import Heat, Outlined
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.nn.attention.base import Attention
from gptkit.nn.forward import Forward
from gptkit.testing.subject import D_MODEL, VOCAB, Subject, stirred

__all__ = ["draw"]

TOKENS = 16
_FEW: Sequence[Mapping[str, int]] = (
    {"sliding_window": 4, "block_size": 2, "top_k": 3},
    {"block_size": 2, "top_blocks": 3, "local_blocks": 1, "index_heads": 1},
    {"block_size": 2, "top_blocks": 3},
    {"top_k": 5},
)
"""Fields of attentions that choose keys, and values with which they choose among so few tokens."""


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the attention weights, or the influence of tokens where there are none; the window; and the cache."""
    subject = first(cls, registry)
    companions = subject.companions()
    companion = "rotary" if "rotary" in companions else companions[0]
    few = next((values for values in _FEW if values.keys() <= cls.model_fields.keys()), {})
    chosen = Subject(subject.spec.replace(**few), registry) if few else subject
    panels: list[Panel] = [*_pattern(chosen, companion, window=False)]
    if subject.windowed is not None:
        panels += _pattern(chosen, companion, window=True)
    panels.append(_cache(subject))
    drawn = "weights" if "weight" in panels[0].title else "gradients"
    caption = (
        f"{drawn.capitalize()} of the module for {TOKENS} random tokens, with random parameters and position {companion}. "
        "A row is a query; the causal mask leaves the upper triangle empty."
    )
    if hasattr(chosen.spec, "sliding_window"):
        how = "the blocks that stand for them" if few else "keys and values that contain them"
        caption += f" Earlier tokens have an influence through {how}."
    if few:
        values = ", ".join(f"{field} {value}" for field, value in few.items())
        caption += f" Drawn with {values}, so that the choice of keys is visible: keys that are not chosen are empty."
    return Figure(panels, caption)


def _pattern(subject: Subject, companion: str, *, window: bool) -> list[Heat]:
    """Return the attention weights, and the influence of tokens where there are none, or others than those of tokens."""
    model = subject.make(companion, window=window, n_layers=1)
    attention = next(module for module in model.modules() if isinstance(module, Attention))
    stirred(attention).eval()
    ids_BT = torch.randint(VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    x_BTE = torch.randn(1, TOKENS, D_MODEL, generator=torch.Generator().manual_seed(2)).requires_grad_()
    forward = Forward(ids_BT, keep_weights=True)
    y_BTE = attention(x_BTE, forward)
    kept = next(iter((forward.weights or {}).values()), None)
    suffix = ", window 5" if window else ""
    if kept is not None:
        matrix_TS = kept.detach()[0].abs().mean(0)
        heats = [_heat(f"attention weights{suffix}", matrix_TS, _blocks(subject, matrix_TS))]
        if not hasattr(subject.spec, "sliding_window"):
            return heats
    else:
        heats = []
    return [*heats, _heat(f"influence of each token{suffix}", _influence(x_BTE, y_BTE))]


def _influence(x_BTE: Tensor, y_BTE: Tensor) -> Tensor:
    """Return for each output the norm of its gradient with respect to each input, relative to the largest, (T, S)."""
    probe_E = torch.randn(y_BTE.shape[-1], generator=torch.Generator().manual_seed(3))
    rows = []
    for at in range(y_BTE.shape[1]):
        (gradient_BTE,) = torch.autograd.grad((y_BTE[0, at] * probe_E).sum(), x_BTE, retain_graph=True)
        rows.append(gradient_BTE[0].norm(dim=-1))
    influence_TS = torch.stack(rows)
    return influence_TS / influence_TS.amax(dim=-1, keepdim=True).clamp_min(1e-12)


def _blocks(subject: Subject, matrix_TS: Tensor) -> Sequence[Outlined]:
    """Return the blocks of keys that queries attend to, the last and chosen ones, if an attention chooses blocks."""
    spec = subject.spec
    if not hasattr(spec, "top_blocks"):
        return ()
    size, partial = spec.block_size, not hasattr(spec, "local_blocks")
    local: list[tuple[int, int, int]] = []
    best: list[tuple[int, int, int]] = []
    for query in range(TOKENS):
        for block in range(-(-TOKENS // size)):
            count = int((matrix_TS[query, block * size : (block + 1) * size] > 0).sum())
            if count:
                first = block * size + int((matrix_TS[query, block * size :] > 0).nonzero()[0])
                n_local = query // size + 1 - (query + 1) // size if partial else spec.local_blocks
                own = query // size - block < n_local
                (local if own else best).append((query, first, count))
    last = "block that is not full" if partial else "local block"
    return Outlined(last, 3, local), Outlined("block with a top score", 2, best)


def _heat(title: str, matrix_TS: Tensor, outlined: Sequence[Outlined] = ()) -> Heat:
    reach = [int((row > 0).sum()) for row in matrix_TS]
    names = ["" if (index + 1) % 4 and index else str(index + 1) for index in range(TOKENS)]
    described = f"The last of {TOKENS} tokens reads {reach[-1]} tokens, the first one {reach[0]}."
    rows = [[value or None for value in row] for row in matrix_TS.tolist()]
    return Heat(title, "key", "query", rows, described, row_names=names, column_names=names, outlined=outlined)


def _cache(subject: Subject) -> Plot:
    """The size of the decoding state of one layer, as its cache allocates it."""
    series = []
    sizes = []
    for index, (label, window) in enumerate((("", False), ("window 5", True))):
        if window and subject.windowed is None:
            continue
        model = subject.make("none", window=window, n_layers=1)
        points = [
            (float(length), model.new_cache(1, capacity=length).bytes / 1024) for length in (1, 128, 256, 512, 1024, 2048)
        ]
        sizes.append(f"{points[-1][1]:.1f} KiB{f' with {label}' if label else ''}")
        series.append(Series(points, label or "no window", index + 1, "line" if index == 0 else "dashed"))
    if len(series) == 1:
        series = [Series(series[0].points)]
    described = f"At 2,048 tokens: {', '.join(sizes)}."
    return Plot("cache of one layer", "tokens", "KiB, fp32", series, described)
