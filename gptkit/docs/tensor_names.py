"""The section of a family's page with the names of its tensors."""

from __future__ import annotations

import re

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.docs.relations import family_models
from gptkit.interop.conversion import families, pair
from gptkit.model.gpt import GPT
from gptkit.reflect import prose

__all__ = ["section"]

_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")


def section(registry: Registry, name: str) -> str:
    """Return a table of the tensors of the family's tiny models; empty if it has none that can be read."""
    family = families(registry)[name]
    rows: dict[str, str] = {}
    for model in family_models(registry).get(name, ()):
        try:
            moves = pair(family, GPT(model, seed=None, device="meta"))
        except GptkitError:
            continue
        for move in moves:
            external = dict.fromkeys(_general(each) for each in move.external)
            rows.setdefault(_general(move.native), "<br>".join(f"`{each}`" for each in external))
    if not rows:
        return ""
    table = prose.table(["gptkit", "file of the family"], [[f"`{native}`", names] for native, names in rows.items()])
    return f"`*` stands for an index.\n\n{table}"


def _general(name: str) -> str:
    return _INDEX.sub("*", name)
