"""What uses a component: families of external models, presets, and other components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache

from gptkit.core import walk
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.docs.places import inside_components, places
from gptkit.interop.conversion import families, read_model
from gptkit.kinds.family import FamilySpec
from gptkit.model.spec import ModelSpec
from gptkit.presets.catalog import family, groups, shipped
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import ExperimentSpec
from gptkit.testing.configurations import SMALL, base_config

__all__ = ["family_models", "preset_specs", "uses", "uses_by_families", "uses_by_presets"]

Uses = Mapping[tuple[str, str], Sequence[str]]
"""Names of what uses a component, by the component's kind and name."""

_WITHOUT_MODEL = "to fine-tune with (train --init)"
"""The group of presets that describe no model of their own."""
_SHOWN, _FEW = 12, 4
"""Names in a sentence, and components that hold others of a kind."""


@lru_cache(maxsize=2)
def preset_specs(registry: Registry) -> Mapping[str, ExperimentSpec]:
    """Return the resolved specs by name of the presets that describe a model of their own."""
    others = groups(registry)[_WITHOUT_MODEL]
    return {name: open_spec(name, registry=registry).spec for name in shipped(registry) if name not in others}


@lru_cache(maxsize=2)
def family_models(registry: Registry) -> Mapping[str, Sequence[ModelSpec]]:
    """Return the tiny models of each family that the conformance kit checks, by the family's name."""
    return {name: list(_models(family, registry)) for name, family in families(registry).items()}


def _models(family: FamilySpec, registry: Registry) -> Iterator[ModelSpec]:
    for tiny in family.tiny:
        try:
            yield read_model(family, base_config(family, SMALL, tiny, registry), registry=registry)
        except GptkitError:
            continue  # the family's page has the checks that say why


@lru_cache(maxsize=2)
def uses_by_families(registry: Registry) -> Uses:
    """Return the families whose tiny models have a component."""
    return _collected(family_models(registry))


@lru_cache(maxsize=2)
def uses_by_presets(registry: Registry) -> Uses:
    """Return the presets that have a component; of a family, those whose model is of it.

    Presets to fine-tune with have the components that they set, beside those of the model that they are used with.
    """
    result = {
        used: list(names) for used, names in _collected({n: [spec] for n, spec in preset_specs(registry).items()}).items()
    }
    every = shipped(registry)
    defaults = _held([open_spec({"gptkit": 1, "model": {}}, registry=registry).spec])
    for name in groups(registry)[_WITHOUT_MODEL]:
        spec = open_spec(name, changes={"model.d_model": 256}, registry=registry).spec  # it requires some model
        for each in sorted(_held([spec]) - defaults):
            result.setdefault(each, []).append(name)
    for name, path in every.items():
        of = family(path)
        if of is not None and name in preset_specs(registry):
            result.setdefault(("family", of), []).append(name)
    return result


def _held(specs: Iterable[Spec]) -> set[tuple[str, str]]:
    """Return kind and name of the components in specs, at any depth."""
    return {(used.kind, used.name) for spec in specs for _, used in walk.components(spec)}


def _collected(specs: Mapping[str, Sequence[Spec]]) -> Uses:
    result: dict[tuple[str, str], list[str]] = {}
    for name, some in specs.items():
        for each in sorted(_held(some)):
            result.setdefault(each, []).append(name)
    return result


def uses(registry: Registry, kind: str, name: str, root: type[Spec] | None) -> str:
    """Return where a component can be used, and what uses it, as Markdown; empty if nothing does."""
    of_families = uses_by_families(registry).get((kind, name), ())
    of_presets = uses_by_presets(registry).get((kind, name), ())
    in_gallery = preset_specs(registry)
    presets = [f"[{each}](../../models.md#{each})" if each in in_gallery else f"`{each}`" for each in of_presets]
    parts = [
        _in_specs(registry, kind, root),
        _listed("Families with it", [f"[{each}](../family/{each}.md)" for each in of_families]),
        _listed("Presets of this family" if kind == "family" else "Presets with it", presets),
    ]
    return "\n\n".join(part for part in parts if part)


@cache
def _in_specs(registry: Registry, kind: str, root: type[Spec] | None) -> str:
    spots = [f"`{spot.dotted}`" for spot in (places(root, kind) if root is not None else [])]
    inside: dict[tuple[str, str], list[str]] = {}
    for outer, holder, field in inside_components(registry, kind):
        inside.setdefault((outer, field), []).append(holder)
    for (outer, field), holders in inside.items():
        links = ", ".join(f"[{holder}](../{outer}/{holder}.md)" for holder in holders[:_FEW])
        more = f" and {len(holders) - _FEW} more" if len(holders) > _FEW else ""
        spots.append(f"`{field}` of {outer} {links}{more}")
    return f"Keys that take it: {'; '.join(spots)}." if spots else ""


def _listed(title: str, names: Sequence[str]) -> str:
    """Return a sentence, or for many names a note to open."""
    if len(names) > _SHOWN:
        return f'??? note "{title}: {len(names)}"\n\n    {", ".join(names)}'
    return f"{title}: {', '.join(names)}." if names else ""
