"""The figure of a component: built as the conformance kit builds it, and drawn by the function of its kind."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry

if TYPE_CHECKING:
    from gptkit.docs.figures.figure import Figure

__all__ = ["KINDS", "figure"]

KINDS: Mapping[str, str] = {
    "activation": "curves",
    "attention": "attention",
    "attention-backend": "backends",
    "block": "modules",
    "callback": "callbacks",
    "data": "corpora",
    "decoding": "decodings",
    "drafter": "drafters",
    "embedding": "modules",
    "engine": "engines",
    "family": "external_families",
    "feedforward": "modules",
    "format": "formats",
    "head": "modules",
    "initializer": "initializers",
    "linear": "linears",
    "norm": "norms",
    "optimizer": "optimizers",
    "position": "positions",
    "precision": "precisions",
    "rotary-scaling": "scalings",
    "router": "routers",
    "sampler": "samplers",
    "schedule": "schedules",
    "tokenizer": "tokenizers",
    "tracker": "trackers",
}
"""Kinds with a figure, and the modules in `gptkit.docs.figures.kinds` whose `draw` returns it; no kinds of plugins."""

_OUTSIDE = ("data", "engine", "family", "format", "tracker")
"""Kinds whose components of plugins may need files, packages or programs that are not available here."""


@cache
def figure(cls: type[Component], registry: Registry) -> Figure | None:
    """Return the figure of a component, the same bytes each time; None for a kind without figures.

    A component of a plugin that requires something from outside, such as a server, has none where that is not available.

    Raises:
        GptkitError: the component could not be built or evaluated; the message names it.
    """
    if cls.kind not in KINDS:
        return None
    import torch

    draw: Callable[[type[Component], Registry], Figure] = importlib.import_module(
        f"gptkit.docs.figures.kinds.{KINDS[cls.kind]}"
    ).draw
    with torch.random.fork_rng(devices=[]), _without_warnings():
        torch.manual_seed(0)
        try:
            return draw(cls, registry)
        except Exception as error:
            if cls.kind in _OUTSIDE and not registry.entry(cls.kind, cls.component_name()).plugin.built_in:
                return None
            name = f"{cls.kind} {cls.component_name()}"
            reason = error.message if isinstance(error, GptkitError) else f"{type(error).__name__}: {error}"
            # An error of the figure itself says what to do; any other one is the component's.
            own = error.hint if isinstance(error, GptkitError) else None
            entry = registry.entries(cls.kind).get(cls.component_name())
            distribution = entry.plugin.distribution if entry else "DISTRIBUTION"
            checks = f"Run `gptkit plugin check {distribution}`; the figure builds the component as the checks do."
            raise GptkitError(f"the figure of {name} could not be drawn: {reason}", hint=own or checks) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Omit warnings: they are about the small models and corpora of a figure, which readers do not have."""
    logger = logging.getLogger("gptkit")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
