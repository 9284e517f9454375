"""Decodings: a search in the distributions of a small random model, as a tree.

Shapes: R rows of a search, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.subjects import first
from gptkit.docs.figures.tree import Node, Tree
from gptkit.kinds.decoding import DecodingContext, DecodingSpec

__all__ = ["draw"]

_Text = tuple[int, int, int | None, tuple[int, ...]]
"""A text of a search: its number of tokens, its row, the index of the text that it continues, its tokens."""

LETTERS = "abcdefgh"
LENGTH, WIDTH = 6, 6


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the texts that the search followed, and the one that it returned first."""
    spec = cast("DecodingSpec", first(cls, registry).spec)
    search = spec.build(DecodingContext(len(LETTERS), LENGTH, frozenset(), "0"))
    texts: list[list[int]] = [[]]
    places = [0]
    nodes: list[_Text] = [(0, 0, None, ())]
    for index in range(LENGTH + 1):
        logits_RV = torch.stack([_logits(text) for text in texts])
        hidden_RTE = torch.stack([_vector(text)[None] for text in texts]) if search.needs_hidden else None
        step = search.step(logits_RV, (), hidden_RTE)
        if not step.rows:
            break
        new_texts = [[*texts[row], int(token)] for row, token in zip(step.rows, step.tokens, strict=True)]
        parents = [places[row] for row in step.rows]
        places = []
        for row, (text, parent) in enumerate(zip(new_texts, parents, strict=True)):
            places.append(len(nodes))
            nodes.append((index + 1, row, parent, tuple(text)))
        texts = new_texts
    best = search.results()[0]
    chain = _chain(nodes, tuple(best.ids))
    drawn = [
        Node(step, row, parent, LETTERS[text[-1]] if text else "▸", index in chain)
        for index, (step, row, parent, text) in enumerate(nodes)
    ]
    result = "".join(LETTERS[token] for token in best.ids)
    described = f"{len(drawn) - 1} texts were followed; the first result is {result} with score {best.score:.3f}."
    caption = (
        f"The search of {LENGTH} tokens in the distributions of a random model over {len(LETTERS)} letters, from left to "
        f"right; highlighted: the first of its results, “{result}”."
    )
    return Figure([Tree("texts that the search follows", drawn, described)], caption)


def _chain(nodes: Sequence[_Text], ids: tuple[int, ...]) -> set[int]:
    """Return the indices of the texts that led to a result; the last token of a result may not be a text of its own."""
    ends = [index for index, node in enumerate(nodes) if node[3] == ids[: len(node[3])]]
    at: int | None = max(ends, key=lambda index: len(nodes[index][3]))
    chain = set()
    while at is not None:
        chain.add(at)
        at = nodes[at][2]
    return chain


def _logits(text: Sequence[int]) -> Tensor:
    return torch.randn(len(LETTERS), generator=torch.Generator().manual_seed(zlib.crc32(bytes(text)))) * 1.5


def _vector(text: Sequence[int]) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(b"h" + bytes(text))))
