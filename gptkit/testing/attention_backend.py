"""Checks of attention backends: each layer that a backend accepts is computed as `eager` computes it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, expect, same
from gptkit.testing.subject import D_HEAD, D_MODEL, VOCAB, Subject, stirred, token_ids

__all__ = ["checks", "computes_the_same"]

checks = Checks()

_LAYERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "rotary"),
    "with grouped heads": ({"n_heads": 4, "n_kv_heads": 2}, "rotary"),
    "with a window": ({"window": 5}, "rotary"),
    "with chunks": ({"chunk": 4}, "none"),
    "with a softcap": ({"softcap": 3.0}, "rotary"),
    "with sinks": ({"sinks": True}, "none"),
    "with a bias": ({"window": 6}, "alibi"),
    "with a content term": ({}, "shaw"),
}


def _models(subject: Subject) -> Iterator[tuple[str, GPT, GPT]]:
    """Models with the backend and with `eager`, of the same weights, for every layer that the backend accepts."""
    for label, (fields, position) in _LAYERS.items():
        attention = {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 2, "d_head": D_HEAD, **fields}
        layout = {"d_model": D_MODEL, "n_layers": 2, "context_length": 48, "attention": attention, "position": position}
        try:
            model = GPT(subject.read({**layout, "attention_backend": subject.spec}), VOCAB)
        except SpecError:
            continue
        eager = GPT(subject.read({**layout, "attention_backend": "eager"}), VOCAB)
        yield label, *(stirred(made).eval() for made in (model, eager))


@torch.no_grad()
def computes_the_same(model: GPT, eager: GPT, what: str) -> None:
    """Require that two models of the same weights give the same logits for whole, packed, padded and cached rows.

    Args:
        model: with the backend.
        eager: with the backend `eager`.
        what: subject of the message.

    Raises:
        ContractError: they do not.
    """
    ids, documents_BT = token_ids(2, 20), torch.tensor([[0] * 9 + [1] * 11, [4] * 4 + [2] * 10 + [7] * 6])
    calls: dict[str, dict[str, Tensor]] = {
        "whole rows": {},
        "packed documents": {"documents_BT": documents_BT},
        "padded rows": {"left_padding_B": torch.tensor([0, 4])},
    }
    # Kernels that torch.compile makes are checked uncompiled: compiling takes seconds.
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", message=".*flex_attention called without torch.compile")
        for call, arguments in calls.items():
            one, other = model(ids, **arguments).logits, eager(ids, **arguments).logits
            if call == "padded rows":
                one, other = one[:, 4:], other[:, 4:]
            same(one, other, f"{what} gives other logits than with eager, for {call}", 1e-4)
        cache, eager_cache = model.new_cache(2), eager.new_cache(2)
        for piece in torch.split(ids, [9, 1, 1, 9], dim=1):
            one, other = model(piece, cache=cache).logits, eager(piece, cache=eager_cache).logits
            same(one, other, f"{what} gives other logits than with eager, for a cache", 1e-4)


@checks.add("equals-eager", "A model must compute the same result with every backend.")
def equals_eager(subject: Subject) -> None:
    seen = False
    for label, model, eager in _models(subject):
        seen = True
        computes_the_same(model, eager, f"a layer {label}")
    expect(seen, "it rejects every layer, including a plain one")


@checks.add("names-limitations", "Limitations of a backend are reported in a sentence when a spec is loaded.")
def names_limitations(subject: Subject) -> None:
    expect(subject.spec.limitation(ScoreFeatures()) is None, "it rejects a plain layer")
    everything = ScoreFeatures(*[True] * len(dataclasses.fields(ScoreFeatures)))
    message = subject.spec.limitation(everything)
    expect(
        message is None or (isinstance(message, str) and message and not message.endswith(".")),
        f"limitation gives {message!r}",
    )
