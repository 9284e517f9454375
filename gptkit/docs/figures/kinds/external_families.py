"""Families of external models: the architecture of a tiny model of the family."""

from __future__ import annotations

from typing import cast

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.diagrams.outline import outline_model
from gptkit.docs.figures.architecture import Architecture
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.subjects import first
from gptkit.interop.conversion import read_model
from gptkit.kinds.family import FamilySpec
from gptkit.testing.configurations import SMALL, base_config

__all__ = ["draw"]


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the diagram of the family's first tiny model."""
    family = cast("FamilySpec", first(cls, registry).spec)
    config = base_config(family, SMALL, family.tiny[0], registry)
    model = read_model(family, config, registry=registry)
    caption = (
        f"The model that the family reads from a config.json of model_type {family.model_type} with small sizes, as the "
        "conformance kit checks it."
    )
    return Figure([Architecture("architecture", outline_model(model))], caption)
