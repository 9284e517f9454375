"""Inspection of a text: surprise, logit lens and attention of a model, as data.

Shapes: H heads, T tokens, S tokens attended to.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.inspection.attention import MOST_WEIGHTS, AttentionMaps, collect_maps
from gptkit.inspection.lens import LogitLens, Progress, logit_lens
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.pages.report import json_report, write_report
from gptkit.pages.tokens import texts

__all__ = ["MOST_TOKENS", "Inspection", "Layer", "inspect_ids"]

MOST_TOKENS = 1024
"""Number of tokens of a text that is inspected as a whole."""


@dataclass(frozen=True)
class Layer:
    """What is known about one layer.

    Attributes:
        index: its index; that of the head's attentions is the number of layers.
        attention: name of its attention component.
        calls: number of attention maps it computed; 0 where it has none (a recurrence), or they were not requested.
        computes_weights: whether the layer computes attention weights; None where they were not requested.
    """

    index: int
    attention: str
    calls: int
    computes_weights: bool | None


@dataclass(frozen=True)
class Inspection:
    """What a model computes for a text.

    ::

        view = run.inspect("The cat sat on the mat")
        view.bits                      # surprise of each token after the first
        view.lens.at(3, -1)            # what the output of layer 2 would predict next
        view.attention.weights[0, 0]   # (H, T, S)
        view.save("cat.html")

    Attributes:
        name: name of the model.
        ids: the tokens.
        vocabulary: the text of every token that occurs in the text or in a prediction.
        lens: predictions of every depth, and the surprise of the text.
        layers: the layers, and whether they have attention weights.
        attention: the attention weights; None without layers that have them, or where they were not requested.
        n_bytes: number of bytes of the tokens after the first; None if decoding the tokens does not restore the text.
    """

    name: str
    ids: tuple[int, ...] = field(repr=False)
    vocabulary: dict[int, str] = field(repr=False)
    lens: LogitLens
    layers: tuple[Layer, ...] = field(repr=False)
    attention: AttentionMaps | None
    n_bytes: int | None

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return [self.vocabulary[token] for token in self.ids]

    @property
    def bits(self) -> list[float]:
        """Surprise of each token after the first, -log2 of its probability."""
        values: list[float] = self.lens.bits.tolist()
        return values

    @property
    def bits_per_token(self) -> float | None:
        """Mean surprise; None for a single token."""
        return sum(self.bits) / len(self.bits) if self.bits else None

    @property
    def bits_per_byte(self) -> float | None:
        """Surprise of the whole text by the bytes of the tokens after the first; None where `n_bytes` is None or 0."""
        return sum(self.bits) / self.n_bytes if self.n_bytes else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as `gptkit inspect --json` prints it."""
        return json_report("inspection", {"model": self.name, **_numbers(self)})

    def html(self) -> str:
        """Return an interactive page, one file that loads nothing."""
        from gptkit.inspection.inspect_page import inspect_page

        return inspect_page(self)

    def save(self, path: str | Path) -> Path:
        """Write the page (``.html``) or the data (``.json``).

        Raises:
            GptkitError: the file exists and was not written by gptkit, or has another suffix.
            FileError: the file cannot be written.
        """
        return write_report(path, html=self.html, data=self.as_dict)

    def _repr_html_(self) -> str:
        """The colored text and the predictions after its last token, for a notebook."""
        from gptkit.inspection.inspect_page import notebook

        return notebook(self)


def inspect_ids(
    model: GPT,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    *,
    name: str = "model",
    top: int = 5,
    attention: bool = True,
    layers: Collection[int] | None = None,
    most_tokens: int = MOST_TOKENS,
    most_weights: int = MOST_WEIGHTS,
    progress: Progress | None = None,
) -> Inspection:
    """Inspect a text.

    Args:
        model, tokenizer: the model and its tokenizer.
        ids: the tokens of the text, at least one.
        name: name of the model.
        top: number of tokens kept of each prediction.
        attention: compute attention weights.
        layers: layers whose attention weights are kept; all by default.
        most_tokens: number of tokens up to which a text is accepted.
        most_weights: number of attention weights that may be kept.
        progress: called with the number of finished positions and their total.

    Raises:
        GptkitError: the text is empty or too long, a layer does not exist, or there are too many attention weights.
    """
    limit = min(model.context_length, most_tokens)
    if not ids:
        raise GptkitError("the text is empty", hint="Pass at least one token.")
    if len(ids) > limit:
        why = "the model's context" if limit == model.context_length else "the limit"
        raise GptkitError(
            f"the text has {len(ids):,} tokens, and {why} is {limit:,}",
            hint=f"Inspect its beginning: --tokens {limit} (in Python: shorten the text).",
        )
    n_layers = len(model.blocks)
    wrong = sorted(layer for layer in layers or () if not 0 <= layer <= n_layers)
    if wrong:
        raise GptkitError(f"the model has no layer {wrong[0]}", hint=f"Its layers are 0 to {n_layers - 1}.")
    maps = collect_maps(model, tokenizer, ids, layers=layers, most=most_weights) if attention else None
    lens = logit_lens(model, ids, top=top, vocab_size=tokenizer.vocab_size, progress=progress)
    return Inspection(
        name=name,
        ids=tuple(ids),
        vocabulary=texts(tokenizer, [*ids, *lens.ids.flatten().tolist()]),
        lens=lens,
        layers=tuple(_layers(model, maps, layers)),
        attention=maps if maps is not None and maps.weights else None,
        n_bytes=_n_bytes(tokenizer, ids),
    )


def _layers(model: GPT, maps: AttentionMaps | None, kept: Collection[int] | None) -> Iterator[Layer]:
    for index, spec in enumerate(model.spec.layer_specs()):
        calls = 0 if maps is None else sum(layer == index for layer, _ in maps.weights)
        requested = maps is not None and (kept is None or index in kept)
        yield Layer(index, spec.attention.name, calls, calls > 0 if requested else None)


def _n_bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> int | None:
    """Return the number of bytes of the tokens after the first; None if they are not those of the text."""
    special = set(tokenizer.special_tokens.values())
    pieces = [b"" if token in special else tokenizer.token_bytes(token) for token in ids]
    text = b"".join(pieces)
    try:
        restored = tokenizer.encode(text.removeprefix(tokenizer.leading).decode())
    except UnicodeDecodeError:
        return None
    # A tokenizer that is not lossless in general (it normalizes text, say) may be for this text.
    if not tokenizer.lossless and restored != [token for token in ids if token not in special]:
        return None
    # The space that the vocabulary adds before the first word does not belong to the text.
    added = len(tokenizer.leading) if not pieces[0] and text.startswith(tokenizer.leading) else 0
    return len(text) - len(pieces[0]) - added


def _numbers(view: Inspection) -> dict[str, Any]:
    """Return the content of a JSON report."""
    lens = view.lens
    entropy, rank, bits = lens.entropy.tolist(), lens.rank.tolist(), view.bits
    tokens: list[dict[str, Any]] = []
    for index, token in enumerate(view.ids):
        entry = {"index": index, "id": token, "text": view.vocabulary[token], "bits": None, "rank": None}
        if index:
            entry |= {"bits": _rounded(bits[index - 1]), "rank": rank[index - 1]}
        tokens.append(entry)
    depths = [
        {
            "depth": depth,
            "positions": [
                {
                    "ids": list(prediction.ids),
                    "probabilities": [_rounded(p) for p in prediction.probabilities],
                    "divergence": _rounded(prediction.divergence),
                    "entropy": _rounded(entropy[position]) if depth == lens.n_depths - 1 else None,
                }
                for position in range(len(view.ids))
                for prediction in [lens.at(depth, position)]
            ],
        }
        for depth in range(lens.n_depths)
    ]
    weights = {} if view.attention is None else view.attention.weights
    return {
        "bits_per_token": _rounded(view.bits_per_token),
        "bits_per_byte": _rounded(view.bits_per_byte),
        "tokens": tokens,
        "vocabulary": {str(token): text for token, text in view.vocabulary.items()},
        "layers": [
            {
                "layer": each.index,
                "attention": each.attention,
                "calls": each.calls,
                "computes_weights": each.computes_weights,
            }
            for each in view.layers
        ],
        "lens": depths,
        "attention": [
            {
                "layer": layer,
                "call": call,
                "weights": [[[_rounded(w) for w in row] for row in head] for head in each.tolist()],
            }
            for (layer, call), each in weights.items()
        ],
    }


def _nested(values: Any) -> Any:
    return [_nested(each) for each in values] if isinstance(values, list) else _rounded(values)


def _rounded(value: float | None) -> float | None:
    """Return a number with six significant digits; None for what JSON cannot express (an infinite divergence)."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
