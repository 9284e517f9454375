"""Differences between two model specs, as sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from gptkit.core import diff
from gptkit.kinds.norm import NormSpec
from gptkit.model.spec import LayerSpec, ModelSpec

__all__ = ["differences", "part_of"]


def differences(native: ModelSpec, external: ModelSpec) -> list[str]:
    """Return where two models compute differently, as sentences; fields that only affect training are ignored."""
    if native == external:
        return []
    result = [
        f"{each.dotted} is {_short(each.left)}, and would be {_short(each.right)}"
        for each in diff.differences(_essence(native), _essence(external), equal=_equal)
    ]
    # A difference of every layer is listed once.
    return list(dict.fromkeys(_everywhere(result, native.n_layers)))


def part_of(layer: LayerSpec, name: str) -> Any:
    """Return the component that a module of a block is built from, by its name; None if it is not one of the layer's parts.

    A norm is the block's own if the block has a field with its name, with or without that of the branch, else the layer's.
    """
    if name.endswith("norm"):
        fields = (name, name.removeprefix("attention_"), name.removeprefix("feedforward_"))
        own = (getattr(layer.block, field, None) for field in fields)
        return next((norm for norm in own if isinstance(norm, NormSpec)), layer.norm)
    return getattr(layer, name, None)


def _everywhere(result: Sequence[str], n_layers: int) -> Iterator[str]:
    parts = [re.fullmatch(r"layers\.\d+\.(.*)", sentence, re.DOTALL) for sentence in result]
    counts = Counter(part[1] for part in parts if part is not None)
    for sentence, part in zip(result, parts, strict=True):
        yield sentence if part is None or counts[part[1]] < n_layers else part[1]


def _essence(model: ModelSpec) -> dict[str, Any]:
    layers = [_plain(layer.model_dump(mode="json", exclude={"repeat"})) for layer in model.layer_specs()]
    for layer, spec in zip(layers, model.layer_specs(), strict=True):
        _unify_heads(layer["attention"], spec.attention)
    whole = model.model_dump(mode="json", include={"context_length", "d_model", "n_layers", "vocab_size"})
    for part in ("embedding", "final_norm", "head"):
        spec = getattr(model, part)
        whole[part] = None if spec is None else _plain(spec.model_dump(mode="json"))
    absolute = "embed" in model.position.uses
    whole["position"] = _plain(model.position.model_dump(mode="json")) if absolute else None
    return {**whole, "layers": layers}


def _unify_heads(attention: dict[str, Any], spec: Any) -> None:
    """Describe multi-head attention as grouped-query attention with as many keys as queries, with its scale; in place."""
    if attention["name"] == "hybrid":
        for field in ("attention", "recurrence"):
            _unify_heads(attention[field], getattr(spec, field))
    if attention["name"] in ("multi-head", "grouped-query"):
        heads = spec.head_shape()
        scale = attention.get("scale") or heads.d_head**-0.5
        attention |= {"name": "grouped-query", "n_kv_heads": heads.n_kv_heads, "scale": float(f"{scale:.9g}")}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in ("dropout", "z_loss", "multiple_of")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _equal(native: Any, external: Any) -> bool:
    """Return whether two values are equal; numbers may differ by the rounding of a written configuration."""
    if _is_number(native) and _is_number(external):
        return bool(abs(native - external) <= 1e-7 * abs(native))
    return bool(native == external)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return str(value.get("name", "a mapping")) if isinstance(value, dict) else str(value)
