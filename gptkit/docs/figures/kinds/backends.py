"""Attention backends: the features of a layer that they support."""

from __future__ import annotations

from dataclasses import fields
from typing import cast

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.chips import Features
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.subjects import first
from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures

__all__ = ["draw"]


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the features, each supported or not."""
    spec = cast("AttentionBackendSpec", first(cls, registry).spec)
    shown = []
    for each in fields(ScoreFeatures):
        if each.name != "score_function":
            features = ScoreFeatures(**{each.name: True})
            shown.append((each.name.replace("_", " "), spec.limitation(features) is None))
    scored = ScoreFeatures(bias=True, score_function=True)
    shown.append(("bias with a score function", spec.limitation(scored) is None))
    count = sum(has for _, has in shown)
    described = f"{count} of {len(shown)} features are supported."
    return Figure(
        [Features("features of a layer", shown, described)], f"As the backend's method `limitation` answers: {described}"
    )
