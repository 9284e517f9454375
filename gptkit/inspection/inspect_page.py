"""The page of `gptkit inspect`, and the representation of an inspection in a notebook."""

from __future__ import annotations

import base64
import math
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.core import html
from gptkit.pages.page import page
from gptkit.pages.tokens import label, running

if TYPE_CHECKING:
    from gptkit.inspection.inspect import Inspection

__all__ = ["inspect_page", "notebook"]

_HOT = 12.0
"""Bits at which the color of a token is full."""

_DIGITS = 5


def inspect_page(view: Inspection) -> str:
    """Return the interactive page of an inspection."""
    return page(f"{view.name}: inspection", ["common.js", "inspect.js"], _data(view))


def _data(view: Inspection) -> dict[str, Any]:
    lens = view.lens
    maps = {} if view.attention is None else view.attention.weights
    return {
        "model": view.name,
        "tokens": list(view.ids),
        "vocabulary": {str(token): text for token, text in view.vocabulary.items()},
        "bits": [None, *_numbers(lens.bits)],
        "rank": [None, *lens.rank.tolist()],
        "entropy": _numbers(lens.entropy),
        "bits_per_token": view.bits_per_token,
        "bits_per_byte": view.bits_per_byte,
        "layers": [
            {"index": each.index, "attention": each.attention, "computes_weights": each.computes_weights}
            for each in view.layers
        ],
        "attention_requested": any(each.computes_weights is not None for each in view.layers),
        "lens": {
            "depths": lens.n_depths,
            "top": lens.ids.shape[2],
            "ids": lens.ids.flatten().tolist(),
            "p": _numbers(lens.probabilities),
            "kl": _numbers(lens.divergence),
            "next": _numbers(lens.next_probability),
        },
        "maps": [
            {"layer": layer, "call": call, "heads": weights.shape[0], **_packed(weights)}
            for (layer, call), weights in maps.items()
        ],
    }


def _numbers(values: Tensor) -> list[float | None]:
    return [round(value, _DIGITS) if math.isfinite(value) else None for value in values.flatten().tolist()]


def _packed(weights_HTS: Tensor) -> dict[str, Any]:
    """Return weights as compressed bytes. The square root is stored, so that small weights keep their precision.

    A byte v is the weight scale · (v / 255)², or with a sign scale · ((v - 128) / 127)².
    """
    scale = max(1.0, float(weights_HTS.abs().max()))
    signed = bool((weights_HTS < 0).any())
    roots = (weights_HTS.abs() / scale).sqrt()
    values = roots * weights_HTS.sign() * 127 + 128 if signed else roots * 255
    data = bytes(values.round().to(torch.uint8).flatten().numpy())
    return {"scale": scale, "signed": signed, "data": base64.b64encode(zlib.compress(data, 6)).decode()}


def notebook(view: Inspection) -> str:
    """Return the colored text and the predictions after it, as HTML without scripts."""
    remark = [f"{len(view.ids):,} tokens"]
    if view.bits_per_byte is not None:
        remark.append(f"{view.bits_per_byte:.3f} bits per byte")
    spans = []
    for index, token in enumerate(view.tokens):
        bits = view.bits[index - 1] if index else 0.0
        title = f"{bits:.2f} bits" if index else "first token"
        style = f"background:rgba(234,88,12,{min(1.0, bits / _HOT) * 0.85:.3f});border-radius:3px;unicode-bidi:isolate"
        shown = running(token).replace("\n", "⏎\n")
        spans.append(f'<span style="{style}" title="{title}">{html.escape(shown)}</span>')
    text = f'<div style="font-family:monospace;white-space:pre-wrap;line-height:1.7">{"".join(spans)}</div>'
    rows = []
    for depth in range(view.lens.n_depths - 1, -1, -1):
        best = view.lens.at(depth, -1)
        words = "  ".join(
            f"{label(view.vocabulary[token])} {p:.0%}" for token, p in zip(best.ids, best.probabilities, strict=True)
        )
        rows.append([f"layer {depth - 1}" if depth else "embedding", f"{best.divergence:.2f}", words])
    table = html.table(rows, ["depth", "KL in bits", "predicted next"])
    hint = '<div style="opacity:.65">The interactive page: <code>view.save("page.html")</code></div>'
    return html.heading(f"Inspection of {view.name}", ", ".join(remark)) + text + html.details("predictions", table) + hint
