"""Comparison of the distributions that a run was written with, as its provenance has them, with the installed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from gptkit.core.errors import CheckpointError, RequirementError, SpecError, UnknownComponentError
from gptkit.core.registry import DISABLE, Plugin, Registry, default_registry

__all__ = ["naming_versions", "require_components"]


def require_components(run: Path, provenance: Mapping[str, Any], registry: Registry | None = None) -> None:
    """Raise an error if a component of a run is missing.

    Args:
        run: the run directory, for the message.
        provenance: the run's provenance.
        registry: where components are looked up; by default what is installed.

    Raises:
        RequirementError: names the distribution that is missing, broken, disabled, or lacks the component.
    """
    registry = registry or default_registry()
    missing: dict[str, list[str]] = {}
    for component, origin in provenance.get("components", {}).items():
        kind, _, name = component.partition(" ")
        try:
            registry.entry(kind, name)
        except UnknownComponentError:
            missing.setdefault(origin, []).append(component)
    if not missing:
        return
    for plugin in registry.plugins():
        origin = next((each for each in missing if _same_distribution(each, plugin)), None)
        if origin is not None and plugin.status != "active":
            needs = f"{run} needs {', '.join(missing[origin])} from {plugin.provenance}, which is"
            if plugin.status == "disabled":
                raise RequirementError(f"{needs} disabled", hint=f"Remove it from {DISABLE}.")
            hint = "Fix it, or install a version that works: gptkit plugins --verbose shows the error."
            raise RequirementError(f"{needs} installed but broken: {plugin.error}", hint=hint)
        if origin is not None:
            names = ", ".join(missing[origin])
            raise RequirementError(
                f"{run} requires {names}, which {plugin.provenance} no longer has", hint=_remedy([origin])
            )
    listed = "; ".join(f"{', '.join(names)} from {origin}" for origin, names in missing.items())
    install = " ".join(f"'{origin}'" for origin in missing)
    hint = f"Install it as before: pip install {install} from an index, or pip install DIRECTORY from its directory."
    raise RequirementError(f"{run} requires {listed}, not installed", hint=hint)


@contextmanager
def naming_versions(provenance: Mapping[str, Any], registry: Registry | None = None) -> Iterator[None]:
    """Add to errors of a run's spec and weights that it was written with other versions, if it was.

    Args:
        provenance: the run's provenance.
        registry: what is installed.

    Raises:
        SpecError: as raised within.
        CheckpointError: as raised within.
    """
    try:
        yield
    except (SpecError, CheckpointError) as error:
        changed = dict(_changed(provenance, registry or default_registry()))
        if not changed:
            raise
        written, installed = ", ".join(changed), ", ".join(changed.values())
        versions = f"The run was written with {written}, and installed is {installed}. {_remedy(list(changed))}"
        hint = versions if error.hint is None else f"{error.hint} {versions}"  # the cause may be another one, such as damage
        if isinstance(error, SpecError):
            raise SpecError(error.problems, hint=hint) from error
        raise CheckpointError(error.message, hint=hint) from error


def _changed(provenance: Mapping[str, Any], registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield distributions of a run in another version than the installed one, and the installed ones."""
    for origin in dict.fromkeys(provenance.get("components", {}).values()):
        plugin = next((each for each in registry.plugins() if _same_distribution(origin, each)), None)
        if plugin is not None and plugin.provenance != origin:
            yield origin, plugin.provenance


def _remedy(origins: Sequence[str]) -> str:
    """Return the remedy for a distribution that has changed since a run was written."""
    install = " ".join(f"'{origin}'" for origin in origins)
    return (
        f"Install it as before: pip install {install}. A plugin's author can keep old runs valid: `aliases` and "
        "`renamed_fields` of a component hold former names."
    )


def _same_distribution(origin: str, plugin: Plugin) -> bool:
    """Return whether an origin in provenance (``gptkit-max==1.0``) is a plugin's distribution in any version."""
    return canonicalize_name(origin.partition("==")[0]) == canonicalize_name(plugin.distribution)
