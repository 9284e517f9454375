"""Supported combinations of attention and position, from their declared capabilities."""

from __future__ import annotations

from gptkit.core.registry import Registry
from gptkit.reflect import prose

__all__ = ["compatibility"]


def compatibility(registry: Registry, *, up: str) -> str:
    """Return a table of positions by attentions; empty if either kind is missing. `up` is the path to the kinds' pages."""
    kinds = registry.kinds()
    if not {"position", "attention"} <= kinds.keys():
        return ""
    positions, attentions = registry.entries("position"), registry.entries("attention")
    if not positions or not attentions:
        return ""
    head = ["position", *(f"[{name}]({up}attention/{name}.md)" for name in attentions)]
    rows = []
    for name, position in positions.items():
        uses = set(getattr(position.cls, "uses", ())) - {"embed"}
        row = [f"[{name}]({up}position/{name}.md)"]
        for attention in attentions.values():
            lacking = sorted(uses - set(getattr(attention.cls, "accepts", ())))
            row.append("yes" if not lacking else f"no: does not accept {', '.join(f'`{hook}`' for hook in lacking)}")
        rows.append(row)
    return prose.table(head, rows)
