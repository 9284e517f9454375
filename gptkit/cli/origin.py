"""Attribution of unexpected exceptions to plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptkit.model.spec import ModelSpec

__all__ = ["failing_plugin", "involved_plugin", "wrong_component", "wrong_output"]


def failing_plugin(error: Exception) -> tuple[str, str] | None:
    """Return the plugin whose code raised an exception, as ``NAME==VERSION``, and the innermost line of it."""
    packages = _packages()
    origin = None
    for frame, line in walk_tb(error.__traceback__):
        plugin = packages.get(_package(frame.f_globals.get("__name__")))
        if plugin is not None:
            origin = plugin, f"{frame.f_code.co_filename}:{line}"
    return origin


def involved_plugin(error: Exception) -> tuple[str, str] | None:
    """Return a plugin with an object in the code that raised, and the name of its class.

    A method with a wrong signature, or a result of a wrong shape, raises in the code of gptkit that calls or uses it. The
    object is a variable of a function in the traceback, the innermost one first, or a module of such a variable.
    """
    packages = _packages()
    if not packages:
        return None
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for values in (_variables(frame), _modules(_variables(frame))):
            for value in values:
                plugin = packages.get(_package(getattr(type(value), "__module__", None)))
                if plugin is not None:
                    return plugin, type(value).__qualname__
    return None


def wrong_output(error: Exception) -> tuple[str, str] | None:
    """Return which component of a plugin returns a value of a wrong type or shape, and the plugin's distribution.

    Such a value raises later, in the code that uses it. Models do not check what their parts return, which would cost time
    and interrupt compiled graphs: after an exception, the plugins' components in the model of the traceback are checked with
    the check of the conformance kit, in a tiny model.
    """
    spec = _model_spec(error)
    return None if spec is None else wrong_component(spec)


def wrong_component(spec: ModelSpec) -> tuple[str, str] | None:
    """Return which component of a model returns a value of a wrong type or shape, as `wrong_output` does."""
    from gptkit.core.registry import default_registry
    from gptkit.core.walk import components
    from gptkit.testing import outputs
    from gptkit.testing.check import ContractError
    from gptkit.testing.subject import Subject

    registry = default_registry()
    for _, component in components(spec):
        try:
            plugin = registry.entry(component.kind, component.name).plugin
            if not plugin.built_in:
                for check in outputs.checks:
                    check(Subject(component, registry))
        except ContractError as violation:
            return f"{component.kind} {component.name!r} of {plugin.provenance}: {violation}", plugin.distribution
        except (Exception, SystemExit):  # it does not run by itself, or the check does not apply to it
            continue
    return None


def _model_spec(error: Exception) -> ModelSpec | None:
    """Return the spec of the innermost model in a traceback."""
    from gptkit.model.spec import ModelSpec

    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        for module in _modules(_variables(frame)):
            spec = getattr(module, "spec", None)
            if isinstance(spec, ModelSpec):
                return spec
    return None


def _packages() -> Mapping[str, str]:
    """Return the provenance of each installed plugin by its top-level package."""
    from gptkit.core.registry import default_registry

    return {_package(plugin.module): plugin.provenance for plugin in default_registry().plugins() if not plugin.built_in}


def _package(module: Any) -> str:
    return str(module or "").partition(":")[0].partition(".")[0]


def _variables(frame: FrameType) -> list[Any]:
    """Return the variables of a function that raised, its object first."""
    values = dict(frame.f_locals)
    return [values.pop("self", None), *values.values()]


def _modules(values: Iterable[Any]) -> list[Any]:
    """Return the modules of those values that are modules, or that have one as `model`."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    candidates = [each for value in values for each in (value, getattr(value, "__dict__", {}).get("model"))]
    return [module for each in candidates if isinstance(each, torch.nn.Module) for module in each.modules()]
