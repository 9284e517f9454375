"""The section of a component's page with its sizes."""

from __future__ import annotations

from collections.abc import Mapping

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.sizes.expressions import Expression, Sizes, sizes
from gptkit.reflect import prose

__all__ = ["section"]

_TITLES = {
    "parameters": "parameters",
    "flops": "FLOPs for T tokens",
    "cache": "cache bytes for T tokens",
}
_TITLES_LINEAR = {**_TITLES, "flops": "FLOPs for one vector"}
_SCOPE = {
    "block": "Its attention and feed-forward are not included.",
    "head": "Blocks in it, and a table that is shared with the embedding, are not included.",
    "linear": "Without a bias.",
    "position": "What a model of one layer has more than with position `none`.",
}


def section(cls: type[Component], registry: Registry) -> str:
    """Return the sizes as Markdown: expressions, and numbers at a named size; empty for a kind without sizes.

    Raises:
        GptkitError: no configuration of the component can be built.
    """
    result = sizes(cls, registry)
    if result is None or (result.numbers is None and not any(result.expressions.values())):
        return ""
    titles = _TITLES_LINEAR if cls.kind == "linear" else _TITLES
    shown = [quantity for quantity in titles if quantity == "parameters" or not _is_zero(result, quantity)]
    rows = [[titles[quantity], _cell(result.expressions[quantity]), _measured(result, quantity)] for quantity in shown]
    named = _values(result.point) if result.numbers is not None else ""
    return "\n\n".join(
        part
        for part in (
            prose.table(["size", "expression", "example"], rows),
            " ".join(part for part in (*_notes(cls.kind, result, shown), f"Example: {named}." if named else "") if part),
        )
        if part
    )


def _is_zero(result: Sizes, quantity: str) -> bool:
    expression = result.expressions[quantity]
    if expression is not None:
        return not expression.polynomial.terms
    return result.numbers is not None and result.numbers[quantity] == 0


def _cell(expression: Expression | None) -> str:
    if expression is None:
        return "measured only"
    text = expression.polynomial.text()
    return "none" if text == "0" else f"`{text}`"


def _measured(result: Sizes, quantity: str) -> str:
    return "" if result.numbers is None else f"{result.numbers[quantity]:,}"


def _notes(kind: str, result: Sizes, shown: list[str]) -> list[str]:
    multiples = sorted({each.multiple for q in shown if (each := result.expressions[q]) is not None and each.multiple > 1})
    notes = [
        "Expressions are fitted to models of one layer on the meta device, and equal the measured numbers at sizes that the "
        "fit has not seen; other fields have their defaults."
    ]
    notes = notes if any(result.expressions[quantity] for quantity in shown) else []
    notes += [_SCOPE[kind]] if kind in _SCOPE else []
    if "flops" in shown:
        notes.append(
            "FLOPs are those of the matrix products of a forward pass, two for each multiplication and addition, as in "
            "`gptkit show`."
        )
    notes += ["The cache is in bf16."] if "cache" in shown else []
    notes += [f"T is a multiple of {multiple}." for multiple in multiples]
    used = {symbol for q in shown if (each := result.expressions[q]) is not None for symbol in each.polynomial.symbols}
    fixed = {symbol: value for symbol, value in result.fixed.items() if symbol not in used and symbol != "T"}
    return [*notes, f"They hold for {_values(fixed)}." if fixed and used else ""]


def _values(point: Mapping[str, int]) -> str:
    return ", ".join(f"`{symbol}` {value:,}" for symbol, value in point.items())
