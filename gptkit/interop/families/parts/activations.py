"""Names of activations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry, default_registry
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_activation", "write_activation"]

_SAME: Mapping[str, str] = MappingProxyType(
    {"gelu_python": "gelu", "gelu_python_tanh": "gelu_pytorch_tanh", "gelu_accurate": "gelu_pytorch_tanh"}
)
"""Names of transformers for other implementations of the same functions."""


def read_activation(config: ExternalConfig, key: str, default: str) -> str:
    """Return the name of the activation that a key names (`ActivationSpec.external_names`)."""
    known, result = _activations(config.registry), config.text(key, default)
    result = result if result in known else _SAME.get(result, result)
    if result not in known:
        clashes = "".join(f"; {clash}" for clash in (config.registry or default_registry()).clashes("activation").values())
        config.refuse(key, f"no installed activation has that name; known are {', '.join(sorted(known))}{clashes}")
    if len(known[result]) > 1:
        config.refuse(key, f"several activations have that name: {', '.join(known[result])}")
    return known[result][0]


def write_activation(activation: Any) -> str:
    """Return the name that transformers has for an activation.

    Raises:
        ExternalModelError: it has none.
    """
    if not activation.external_names:
        raise ExternalModelError(
            f"the activation {activation.name!r} has no name in configurations of external models",
            hint="Choose another activation, or declare `external_names` in its class.",
        )
    name: str = activation.external_names[0]
    return name


def _activations(registry: Registry | None) -> dict[str, list[str]]:
    """Return the names of registered activations by their external names."""
    known: dict[str, list[str]] = {}
    for name, entry in (registry or default_registry()).entries("activation").items():
        for external in cast("Any", entry.cls).external_names:
            known.setdefault(external, []).append(name)
    return known
