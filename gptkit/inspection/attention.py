"""Attention weights of a text as heatmaps: HTML for a notebook, or a matplotlib figure.

Shapes: H heads, T tokens that attend, S tokens attended to.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gptkit.core import html
from gptkit.core.errors import GptkitError, RequirementError
from gptkit.inference.modes import evaluating
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.pages.tokens import label, text_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_WEIGHTS", "AttentionMaps", "attention_maps", "collect_maps"]

_COLOR = (234, 88, 12)
"""Color of the weights, drawn with varying opacity; visible on white and on black."""

_TILE = 72

MOST_WEIGHTS = 1 << 23
"""Number of attention weights that are kept by default: 128 tokens in 32 layers of 16 heads."""


class AttentionMaps:
    """Attention weights of one text.

    Attributes:
        tokens: the text of each token.
        weights: (H, T, S) for each layer and call within the layer: ``maps.weights[3, 0]``; rows attend to columns.
    """

    def __init__(self, tokens: Sequence[str], weights: Mapping[tuple[int, int], Tensor]) -> None:
        self.tokens = list(tokens)
        self.weights = dict(weights)

    def __repr__(self) -> str:
        layers = len({layer for layer, _ in self.weights})
        return f"<AttentionMaps of {len(self.tokens)} tokens in {layers} layers: maps.html(layer, head), maps.weights>"

    def html(self, layer: int, head: int = 0, call: int = 0) -> str:
        """Return one map as HTML: a row for each token, a column for each token that it attends to.

        Raises:
            GptkitError: the layer, head or call does not exist.
        """
        weights_TS = self._one(layer, head, call).tolist()
        labels = [html.escape(label(token)) for token in self.tokens]
        cell = "width:1.5em;min-width:1.5em;height:1.5em;padding:0;border:1px solid rgba(128,128,128,.2)"
        upright = "writing-mode:vertical-rl;transform:rotate(180deg);white-space:pre;font-weight:normal;padding:.2em 0"
        name = "text-align:right;white-space:pre;font-weight:normal;padding:0 .5em 0 0"
        columns = "".join(f'<th style="{upright}">{label}</th>' for label in labels)
        rows = "".join(
            f'<tr><th style="{name}">{label}</th>'
            + "".join(
                f'<td style="{cell};background:rgba{(*_COLOR, round(weight, 3))}" '
                f'title="{label} → {labels[column]}: {weight:.3f}"></td>'
                for column, weight in enumerate(row)
            )
            + "</tr>"
            for label, row in zip(labels, weights_TS, strict=True)
        )
        style = "border-collapse:collapse;font-family:monospace;font-size:85%;color:inherit;background:none"
        title = html.heading(f"layer {layer}, head {head}", "a row attends to its columns")
        return f'{title}<div style="overflow:auto"><table style="{style}"><tr><th></th>{columns}</tr>{rows}</table></div>'

    def figure(self, layer: int, head: int = 0, call: int = 0) -> Figure:
        """Return one map as a matplotlib figure.

        Raises:
            GptkitError: the layer, head or call does not exist.
            RequirementError: matplotlib is not installed.
        """
        try:
            from gptkit.training.plot import NotebookFigure
        except ImportError as error:
            raise RequirementError(f"a figure requires matplotlib: {error}", hint="Run: pip install matplotlib") from None
        weights_TS = self._one(layer, head, call)
        side = min(16.0, 2.5 + 0.22 * len(self.tokens))
        figure = NotebookFigure(figsize=(side, side), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        image = axes.imshow(weights_TS.numpy(), cmap="Oranges", vmin=0, vmax=1)
        labels = [label(token) for token in self.tokens]
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontfamily="monospace", fontsize=8)
        axes.set_yticks(range(len(labels)), labels, fontfamily="monospace", fontsize=8)
        axes.set_title(f"layer {layer}, head {head}", loc="left")
        figure.colorbar(image, ax=axes, shrink=0.6)
        return figure

    def _one(self, layer: int, head: int, call: int) -> Tensor:
        weights = self.weights.get((layer, call))
        if weights is None:
            known = ", ".join(str(each) for each, _ in self.weights)
            raise GptkitError(f"layer {layer}, call {call} has no attention weights", hint=f"Layers with weights: {known}.")
        if not 0 <= head < weights.shape[0]:
            raise GptkitError(f"layer {layer} has no head {head}", hint=f"Its heads are 0 to {weights.shape[0] - 1}.")
        return weights[head]

    def _repr_html_(self) -> str:
        """Return an overview for a notebook: layers as rows, heads as columns."""
        size = f"width:{_TILE}px;height:{_TILE}px;image-rendering:pixelated;border:1px solid rgba(128,128,128,.35)"
        rows = []
        for (layer, call), weights_HTS in self.weights.items():
            name = f"layer {layer}" + (f", call {call}" if call else "")
            tiles = "".join(
                f'<img style="{size};margin:2px" alt="{name}, head {head}" title="{name}, head {head}" src="{_png(map_TS)}">'
                for head, map_TS in enumerate(weights_HTS)
            )
            label = f'<div style="width:7em;flex:none;opacity:.7">{name}</div>'
            rows.append(f'<div style="display:flex;align-items:center">{label}<div>{tiles}</div></div>')
        remark = f"{len(self.tokens)} tokens; rows attend to columns; one map per head"
        hint = '<div style="opacity:.65;margin-top:.4em">One map with its tokens: <code>maps.html(layer, head)</code></div>'
        body = f'<div style="max-height:40em;overflow:auto">{"".join(rows)}</div>'
        return html.heading("Attention weights", remark) + body + hint


def attention_maps(
    model: GPT,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    *,
    layers: Collection[int] | None = None,
    most: int = MOST_WEIGHTS,
) -> AttentionMaps:
    """Compute the attention weights of a text in every layer that has them.

    Args:
        model, tokenizer: the model and its tokenizer.
        ids: the tokens of the text.
        layers: the layers whose weights are kept; all by default.
        most: number of weights that may be kept. The weights of one layer at a time are held besides.

    Raises:
        GptkitError: no layer has attention weights, a layer does not exist, or there are more weights than `most`.
        StateError: the text is longer than the context.
    """
    maps = collect_maps(model, tokenizer, ids, layers=layers, most=most)
    if not maps.weights:
        which = "no layer of the model" if layers is None else f"none of the layers {', '.join(map(str, sorted(layers)))}"
        raise GptkitError(f"{which} has attention weights", hint="Recurrent layers such as gated-delta compute none.")
    return maps


def collect_maps(
    model: GPT, tokenizer: Tokenizer, ids: Sequence[int], *, layers: Collection[int] | None, most: int
) -> AttentionMaps:
    """Compute the attention weights as `attention_maps` does; a model without them has empty maps."""
    ids_1T = torch.tensor([list(ids)], device=model.device)
    with evaluating(model), torch.inference_mode():
        weights = _collect(model, ids_1T, layers, most)
    return AttentionMaps([text_of(tokenizer, token) for token in ids], dict(sorted(weights.items())))


def _collect(model: GPT, ids_1T: Tensor, layers: Collection[int] | None, most: int) -> dict[tuple[int, int], Tensor]:
    """Return the weights (H, T, S) by layer and call, taken from the forward context after each block."""
    kept: dict[tuple[int, int], Tensor] = {}
    seen: set[tuple[int, int]] = set()

    def take(weights: dict[tuple[int, int], Tensor]) -> None:
        for key in weights.keys() - seen:
            seen.add(key)
            if layers is None or key[0] in layers:
                kept[key] = weights[key][0].float().cpu()
            weights[key] = weights[key].new_empty(0)  # the context numbers further calls by what it holds
        n_kept = sum(each.numel() for each in kept.values())
        if n_kept > most:
            raise GptkitError(
                f"the attention weights of {ids_1T.shape[1]:,} tokens are more than {most:,} numbers",
                hint="Shorten the text, choose layers (--layers 0,5), or leave attention out (--no-attention).",
            )

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        context = arguments[1]
        if context.weights is not None:
            take(context.weights)

    with ExitStack() as hooks:
        for block in dict.fromkeys(model.blocks):
            hooks.callback(block.register_forward_hook(after).remove)
        take(model(ids_1T, keep_weights=True).weights or {})
    return kept


def _png(weights_TS: Tensor) -> str:
    """Return the weights as a PNG with one pixel each, in a data URI; a weight is the pixel's opacity."""
    alpha_TS = (weights_TS.clamp(0, 1).sqrt() * 255).round().to(torch.uint8)
    height, width = alpha_TS.shape
    pixels = torch.tensor([*_COLOR, 0], dtype=torch.uint8).expand(height, width, 4).clone()
    pixels[..., 3] = alpha_TS
    lines = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in pixels)
    parts = ((b"IHDR", struct.pack(">2I5B", width, height, 8, 6, 0, 0, 0)), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
