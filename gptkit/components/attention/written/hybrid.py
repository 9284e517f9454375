"""Template of `hybrid`. The two parts keep what they need in the layer's one cache, under different names."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from gptkit.kinds.written import NotWrittenError, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.attention.hybrid import HybridSpec

__all__ = ["hybrid"]

_CLASS = '''
class $class_name(nn.Module):
    """Attention and a recurrence on the same input; their outputs are added."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention = $attention
        self.recurrence = $recurrence

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens with earlier ones, (B, T, E) to (B, T, E)."""
        attended_BTE = self.attention($attends_to, positions_T, cache)
        recurrent_BTE = self.recurrence($recurs_over, positions_T, cache)
        return $attended + $recurrent
'''

_KEPT = ("inputs", "state", "keys")
"""What layers keep of earlier tokens."""


def hybrid(spec: HybridSpec, context: WritingContext) -> Written:
    """Return the layer as a class.

    Raises:
        NotWrittenError: both parts are recurrences, which keep their states under the same name.
    """
    settings: dict[str, Setting] = {}
    scaled = {"attends_to": "x_BTE", "recurs_over": "x_BTE", "attended": "attended_BTE", "recurrent": "recurrent_BTE"}
    for name, value, setting, comment in (
        ("attends_to", spec.attention_input_scale, "ATTENTION_INPUT_SCALE", "factor of the attention's input"),
        ("recurs_over", spec.recurrence_input_scale, "RECURRENCE_INPUT_SCALE", "factor of the recurrence's input"),
        ("attended", spec.attention_scale, "ATTENTION_OUTPUT_SCALE", "factor of the attention's output"),
        ("recurrent", spec.recurrence_scale, "RECURRENCE_OUTPUT_SCALE", "factor of the recurrence's output"),
    ):
        if value != 1:
            settings[setting] = Setting(value, comment)
            scaled[name] = f"${setting} * {scaled[name]}"
    parts: dict[str, Written] = {}
    for field, inner in (("attention", spec.attention), ("recurrence", spec.recurrence)):
        own = spec.inner_context(field, context)
        parts[field] = written(inner, own.replace(layer=dataclasses.replace(own.parts, attention=inner)))
    kept = [_kept(_source(part)) for part in parts.values()]
    if kept[0] & kept[1]:
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out with {spec.attention.name!r} and {spec.recurrence.name!r}: both "
            f"keep {' and '.join(sorted(kept[0] & kept[1]))} of earlier tokens",
            hint="Choose an attention with keys and values, and a recurrence.",
        )
    fields = [f"{part}{suffix}" for part in ("attention", "recurrence") for suffix in ("", "_scale", "_input_scale")]
    text = fill(_CLASS, **scaled)
    return Written("Hybrid", text, settings=settings, parts=parts, section="attention", fields=fields)


def _kept(source: str) -> set[str]:
    """Return what a part keeps; copied attentions append keys and values to their state."""
    names = {name for name in _KEPT if f'"{name}"' in source}
    return names | {"keys"} if re.search(r"\b(state|cache)\.append\(", source) else names


def _source(part: Written) -> str:
    """The text of a part with those of its own parts."""
    return part.text + "".join(_source(inner) for inner in part.parts.values())
