"""Causal language models of transformers that no family reads, and why."""

from __future__ import annotations

from gptkit.interop.uncovered import reasons
from gptkit.reflect import prose

__all__ = ["reasons", "section"]


def section() -> str:
    """Return the list as Markdown: a table of model types by reason."""
    types: dict[str, list[str]] = {}
    for model_type, reason in reasons().items():
        types.setdefault(reason, []).append(f"`{model_type}`")
    rows = [[", ".join(each), reason] for reason, each in types.items()]
    return "\n\n".join(
        (
            "## Other language models of transformers",
            "No family reads these model types, for which transformers has a causal language model. A test "
            "compares the list with transformers and with the registered families.",
            prose.table(["model_type", "reason"], rows),
        )
    )
