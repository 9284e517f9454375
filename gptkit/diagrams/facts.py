"""Short phrases about a component, from its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gptkit.core.component import Component
from gptkit.core.spec import Spec

__all__ = ["ALWAYS", "HIDDEN", "PHRASES", "facts", "number", "parameters", "title"]

PHRASES = {
    "n_heads": "{} heads",
    "n_kv_heads": "{} key/value heads",
    "n_value_heads": "{} value heads",
    "d_head": "head size {}",
    "d_hidden": "hidden width {}",
    "window": "window of {} tokens",
    "chunk": "chunks of {} tokens",
    "n_experts": "{} experts",
    "k": "{} per token",
    "n_groups": "{} groups",
    "top_groups": "the best {}",
    "size": "{} positions",
    "d_state": "state of {}",
    "d_key": "key size {}",
    "d_value": "value size {}",
    "kv_rank": "key/value rank {}",
    "q_rank": "query rank {}",
    "d_rotary": "{} rotated features",
    "d_nope": "{} other features",
    "conv_width": "convolution over {} tokens",
    "depth": "{} further tokens",
    "rank": "rank {}",
    "streams": "{} streams",
    "times": "applied {} times",
    "d_embedding": "embedding size {}",
    "n_ids": "{} embedded ids",
}
"""Phrases of fields that are shown whatever their value is, except null."""

ALWAYS = ("activation", "router", "expert", "shared")
"""Fields of components that are shown even with their default."""

HIDDEN = ("name", "eps", "expansion", "multiple_of", "cast", "offset", "layout", "norm_groups", "vocab_size")
"""Fields that a diagram does not show: details of arithmetic, and values that others determine."""

_WORDS = {"feedforward": "feed-forward"}


def title(component: Component) -> str:
    """Return the name and kind of a component, as in ``grouped-query attention``."""
    return f"{component.name} {_WORDS.get(component.kind, component.kind)}"


def facts(component: Component, width: int = 0) -> list[str]:
    """Return phrases about the fields of a resolved component: its sizes, and what differs from the defaults.

    Args:
        component: the component. Only its declared fields are read, so those of plugins are described in the same way.
        width: d_model; an embedding table of this width is not mentioned.
    """
    return list(_facts(component, width))


def number(value: float) -> str:
    """Return a number with thousands separators, without an exponent: ``1,000,000``, ``0.00001``."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e6:
        return f"{round(value):,}"
    text = f"{value:.6g}"
    return re.sub(r"\.?0+$", "", f"{value:.10f}") if "e" in text else text


def parameters(count: int) -> str:
    """Return a number of parameters in words: ``124.4M``, ``8.03B``, ``12,608``."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if count >= size - size // 2000:  # what would be rounded to 1000 of the smaller unit
            # In integers, so that all programs round alike.
            digits = 2 if 200 * count < 1999 * size else 1 if 20 * count < 1999 * size else 0
            scaled = (count * 10**digits * 2 + size) // (2 * size)
            whole, part = divmod(scaled, 10**digits)
            return f"{whole}.{part:0{digits}d}{letter}" if digits else f"{whole}{letter}"
    return f"{count:,}"


def _facts(component: Spec, width: int) -> Iterator[str]:
    fields = type(component).model_fields
    order = [name for name in PHRASES if name in fields]
    for name in [*order, *(name for name in fields if name not in PHRASES)]:
        info, value = fields[name], getattr(component, name)
        if name in HIDDEN or (name == "d_embedding" and value == width) or _is_one_group(component, name):
            continue
        default = info.get_default(call_default_factory=True)
        if isinstance(value, Component):
            if name in ALWAYS or not _is_default(value, default):
                yield _nested(name, value, width)
        elif name in PHRASES and isinstance(value, int):
            phrase = PHRASES[name].format(number(value))
            yield phrase.removesuffix("s") if value == 1 and phrase.startswith("1 ") else phrase
        elif value is not None and value != default:
            yield _plain(name.replace("_", " "), value)


def _is_one_group(component: Spec, field: str) -> bool:
    """Return whether a field is about groups, and there is one, that of everything."""
    return field in ("n_groups", "top_groups") and getattr(component, "n_groups", None) == 1


def _nested(field: str, value: Component, width: int) -> str:
    inner = ", ".join(_facts(value, width))
    return f"{field.replace('_', ' ')}: {value.name}{f' ({inner})' if inner else ''}"


def _is_default(value: Component, default: Any) -> bool:
    """Return whether a component is the field's default, a name or a mapping, with all its own defaults."""
    if default is None:
        return False
    given = {"name": default} if isinstance(default, str) else default
    return dict(given) == {"name": value.name} and not list(_facts(value, 0))


def _plain(words: str, value: Any) -> str:
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if isinstance(value, (int, float)):
        return f"{words} {number(value)}"
    if isinstance(value, str):
        return f"{words} {value}"
    return words
