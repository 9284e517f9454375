"""Random models of the built-in components: the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import torch

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.draws import draw_component, draw_named, drawn_names
from tests.support.plugin_registry import registry_of

__all__ = ["BUILT_IN", "CONTEXT", "V", "named", "random_models", "varied"]

V, CONTEXT = 23, 8
BUILT_IN = registry_of()
LAYER_PARTS = ("attention", "norm", "feedforward", "block")
PARTS = ("position", *LAYER_PARTS, "embedding", "head", "initializer")
LEARNED = ("xielu",)
"""Activations with parameters, which are drawn inside experts."""
ATTEMPTS = 40
"""Models that are drawn for a component until one is valid."""


def random_models(seed: int, context_length: int = CONTEXT) -> Iterator[tuple[str, ModelSpec]]:
    """Return a valid random model for each component of a model, with its name; the other parts of each are random.

    Raises:
        AssertionError: a refusal has no message, or more than a tenth of the components are in no valid model.
    """
    wanted = [(kind, name) for kind in PARTS for name in drawn_names(kind, BUILT_IN)]
    wanted += [("activation", name) for name in LEARNED]
    missing = []
    for kind, name in wanted:
        for attempt in range(ATTEMPTS):
            data = _model(Random(f"{seed} {kind} {name} {attempt}"), kind, name) | {"context_length": context_length}
            try:
                spec = validate_data(data, ModelSpec)
            except SpecError as error:
                assert error.problems, data
                assert all(problem.message for problem in error.problems), data
                continue
            yield f"{kind} {name}, seed {seed}, attempt {attempt}", spec
            break
        else:
            missing.append(f"{kind} {name}")
    assert len(missing) <= len(wanted) / 10, missing


def _model(chance: Random, kind: str, name: str) -> dict[str, Any]:
    """Draw a small model with a component as plain data, which need not be valid."""
    spec: dict[str, Any] = {
        "context_length": CONTEXT,
        "d_model": chance.choice([8, 12, 16]),
        "n_layers": chance.randint(1, 3),
    }
    for part in PARTS:
        if part == kind:
            spec[part] = draw_named(chance, kind, name, BUILT_IN)
        elif chance.random() < 0.5:
            spec[part] = draw_component(chance, part, BUILT_IN)
    if kind == "activation":
        expert = draw_named(chance, "feedforward", chance.choice(["gated", "mlp", "single-layer"]), BUILT_IN)
        expert = {**expert, "activation": draw_named(chance, kind, name, BUILT_IN)}
        spec["feedforward"] = {**draw_named(chance, "feedforward", "experts", BUILT_IN), "expert": expert}
    if chance.random() < 0.5:
        spec["layers"] = [_layer(chance) for _ in range(chance.randint(1, 3))]
        if kind in LAYER_PARTS:
            spec["layers"][0] = {}  # the component's layer
    return spec


def _layer(chance: Random) -> dict[str, Any]:
    return {part: draw_component(chance, part, BUILT_IN) for part in LAYER_PARTS if chance.random() < 0.3}


@torch.no_grad()
def varied(model: GPT, seed: int) -> GPT:
    """Change every weight of a model, so that none is zero or equal to another; return it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(2, *parameter.shape, generator=generator).to(parameter)
        parameter.mul_(1 + 0.1 * noise[0]).add_(0.02 * noise[1])
    return model.eval()


@contextmanager
def named(name: str, spec: ModelSpec) -> Iterator[None]:
    """Add a model's name and spec to what a test raises about it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"of the random model {name}: {spec.model_dump_json(exclude_defaults=True)}")
        raise
