"""Random models, drawn from the components of the registry."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support.strategies import component

__all__ = ["CONTEXT", "V", "models"]

V, CONTEXT = 23, 8


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a small model as plain data, which need not be valid."""
    spec: dict[str, Any] = {
        "context_length": CONTEXT,
        "d_model": draw(st.sampled_from([8, 12, 16])),
        "n_layers": draw(st.integers(1, 3)),
    }
    parts = ("position", "attention", "norm", "feedforward", "block")
    for kind in (*parts, "embedding", "head", "initializer"):
        if draw(st.booleans()):
            spec[kind] = draw(component(kind))
    if draw(st.booleans()):
        entry = st.fixed_dictionaries({}, optional={part: component(part) for part in parts if part != "position"})
        spec["layers"] = draw(st.lists(entry, min_size=1, max_size=3))
    return spec
