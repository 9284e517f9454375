"""The measured outcomes of all pairs of built-in components, which ``measured.json`` holds.

The costly columns take minutes, so pages show what is stored; a test measures pairs again and compares. Pairs with
components of plugins are measured when the pages are made, in the columns that are not costly.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptkit.core.registry import Registry
from gptkit.docs.stored_file import read_stored

__all__ = ["STORED", "Outcomes", "outcomes", "stored_data"]

STORED = Path(__file__).with_name("measured.json")

Outcomes = Mapping[tuple[str, str], Mapping[str, str]]
"""The outcome of each column, by the names of attention and position; a column that was not measured is missing."""


@lru_cache(maxsize=4)
def outcomes(registry: Registry, *, measure: bool) -> Outcomes:
    """Return the outcomes of the pairs whose declarations match.

    Args:
        registry: the attentions and positions.
        measure: measure pairs that are not stored; else their outcomes are empty.
    """
    from gptkit.docs.combinations.columns import COLUMNS, accepted, measured  # torch

    known = _stored()
    cheap = [name for name, column in COLUMNS.items() if not column.costly]
    result: dict[tuple[str, str], Mapping[str, str]] = {}
    for attention, position in accepted(registry):
        own = all(registry.entries(kind)[name].plugin.built_in for kind, name in _named(attention, position))
        stored = known.get(attention, {}).get(position) if own else None
        if stored is None:
            stored = measured(registry, attention, position, cheap) if measure else {}
        result[attention, position] = stored
    return result


def stored_data(registry: Registry) -> dict[str, Any]:
    """Return the content of the stored file: every column for all pairs of built-in components, measured in minutes."""
    from gptkit.docs.combinations.columns import COLUMNS, accepted, measured
    from gptkit.docs.combinations.sharded import sharded

    pairs = [
        (attention, position)
        for attention, position in accepted(registry)
        if all(registry.entries(kind)[name].plugin.built_in for kind, name in _named(attention, position))
    ]
    of_shards = sharded(pairs)
    result: dict[str, dict[str, dict[str, str]]] = {}
    for pair in pairs:
        own = {**measured(registry, *pair, COLUMNS), "sharded": of_shards[pair]}
        result.setdefault(pair[0], {})[pair[1]] = {name: own[name] for name in COLUMNS}
    return result


def _named(attention: str, position: str) -> tuple[tuple[str, str], ...]:
    return ("attention", attention), ("position", position)


def _stored() -> Mapping[str, Any]:
    return read_stored(STORED)
