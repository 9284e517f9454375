"""Every component of which a model's modules are built, of gptkit and of the distributions under plugins/."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gptkit.core.registry import Registry, default_registry
from tests.support.pairs import variants
from tests.support.plugin_registry import registry_of

PLUGINS = Path(__file__).parents[2] / "plugins"
IN_THE_MODEL = {
    *("attention", "position", "rotary-scaling", "block", "norm", "linear", "activation", "feedforward", "router"),
    *("embedding", "head"),
}
"""Kinds of which a model's modules are built."""
ELSEWHERE = {
    *("attention-backend", "initializer", "sampler", "tokenizer", "data", "optimizer", "schedule", "callback", "tracker"),
    *("family", "format", "engine", "precision", "drafter", "decoding"),
}
"""Kinds without a part in a training step's graph, or (backends) without one of their own."""


def plugin_modules() -> dict[str, ModuleType]:
    """Return the plugin module of every distribution under plugins/ that has one."""
    result = {}
    for project in sorted(PLUGINS.glob("*/pyproject.toml")):
        points = tomllib.loads(project.read_text())["project"].get("entry-points", {}).get("gptkit", {})
        sys.path.insert(0, str(project.parent))
        for module in points.values():
            result[project.parent.name.replace("-", "_")] = importlib.import_module(module)
        sys.path.remove(str(project.parent))
    return result


MODULES = plugin_modules()
REGISTRY: Registry = registry_of(**{name: lambda module=module: module for name, module in MODULES.items()})  # type: ignore[misc]
OTHERS: list[dict[str, Any]] = [
    *({"block": {"name": name}} for name in default_registry().names("block")),
    *({"norm": {"name": name}} for name in default_registry().names("norm")),
    *({"feedforward": variant} for variant in variants("feedforward")),
    *(
        {"feedforward": {"name": "experts", "n_experts": 4, "expert": {"name": "mlp", "d_hidden": 8}, "router": router}}
        for router in variants("router")
    ),
    {
        "block": {"name": "pre-norm", "dropout": 0.3},
        "attention": {"name": "multi-head", "n_heads": 4, "dropout": 0.2},
        "embedding": {"name": "token", "dropout": 0.1},
    },
]


def plugin_components() -> list[Any]:
    result = []
    for distribution, module in MODULES.items():
        for cls in module.gptkit_components():
            for example in cls.examples or ({},):
                label = f"{distribution}-{cls.kind}-{cls.component_name()}-{example}"
                result.append(pytest.param(cls, dict(example), id=label.replace(" ", "")))
    return result
