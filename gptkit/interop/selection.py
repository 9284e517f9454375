"""Selection of the format of a path, and of the family that can express a model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gptkit.core.component import Component, component
from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.spec import Spec
from gptkit.core.suggestions import did_you_mean
from gptkit.files import validate_data
from gptkit.interop.conversion import families, read_model, write_config
from gptkit.interop.differences import differences
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import FormatSpec
from gptkit.model.spec import ModelSpec

__all__ = ["DEFAULT", "choose_family", "detect_format", "export_format", "formats"]

DEFAULT = "hugging-face"
"""The format of an export where neither the user nor the path's suffix names one."""

_FILE_TYPE = re.compile(r"\.(?!v\d)[a-z][a-z0-9]{1,4}")
"""A suffix that looks like a file type, unlike those of versions and sizes in names of directories (.v2, .6B)."""

_OTHER_SUFFIXES = frozenset({".bin", ".ckpt", ".ggml", ".gguf", ".h5", ".onnx", ".pt", ".pth", ".safetensors", ".tflite"})
"""Suffixes of model files, which are not taken for the name of a directory."""

_FAILED = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, StopIteration)


class _Chosen(Spec):
    format: FormatSpec = component(DEFAULT, description="The format.")


MODEL_PATHS = "Give the directory or file of a downloaded model."
"""Remedy where a path holds no model."""


def formats(registry: Registry | None = None) -> dict[str, FormatSpec]:
    """Return every registered format by name, with the defaults of its fields."""
    registry = registry or default_registry()
    return {name: _validated({"name": name}, registry) for name in registry.names("format")}


def _validated(chosen: str | Mapping[str, Any] | FormatSpec, registry: Registry) -> FormatSpec:
    if isinstance(chosen, FormatSpec):
        return chosen
    name = chosen if isinstance(chosen, str) else chosen.get("name")
    if isinstance(name, str):
        # The message for a name alone is shorter than that for a wrong spec.
        registry.component("format", name)
    return validate_data({"format": chosen}, _Chosen, registry).format


def detect_format(path: Path, name: str | None = None, registry: Registry | None = None) -> FormatSpec:
    """Return the format of an existing file or directory.

    Args:
        path: the file or directory.
        name: the format's name, which is not detected then.
        registry: where formats are looked up; by default what is installed.

    Raises:
        ExternalModelError: no format recognizes the path, or two do; gives each format's reason.
        UnknownComponentError: no format has that name.
    """
    registry = registry or default_registry()
    if not path.exists():
        readable = ", ".join(each for each, spec in formats(registry).items() if not spec.is_program)
        hint = f"Give the path of a model in one of the formats {readable}."
        raise ExternalModelError(f"{path}: file or directory not found", hint=hint)
    if not (path.is_file() or path.is_dir()):
        # Opening a pipe would wait for a writer.
        raise ExternalModelError(f"{path} is neither a file nor a directory", hint="Give the path of a model.")
    if name is not None:
        return _validated(name, registry)
    known = formats(registry)
    result = {each: spec.detect(path) for each, spec in known.items()}
    best = max((detection.score for detection in result.values()), default=0.0)
    chosen = [each for each, detection in result.items() if detection.score == best > 0]
    if len(chosen) == 1:
        return known[chosen[0]]
    if chosen:
        reasons = "; ".join(f"{each}: it {result[each].reason}" for each in chosen)
        raise ExternalModelError(f"{path} may be of several formats: {reasons}", hint="Name one with --from.")
    reasons = "; ".join(f"{each}: it {detection.reason}" for each, detection in result.items())
    clashes = "; ".join(registry.clashes("format").values())
    raise ExternalModelError(
        f"{path} is not a model in a known format: {reasons or 'none is installed'}", hint=clashes or MODEL_PATHS
    )


def export_format(
    chosen: str | Mapping[str, Any] | FormatSpec | None = None,
    path: Path | None = None,
    registry: Registry | None = None,
    options: Mapping[str, Any] | None = None,
) -> FormatSpec:
    """Return the format to export to: the chosen one, or that of the path's suffix, or `DEFAULT`.

    Args:
        chosen: the format's name, its spec as data, or the spec itself.
        path: the file or directory to write.
        registry: where formats are looked up; by default what is installed.
        options: fields of the format that override those of `chosen`.

    Raises:
        ExternalModelError: several formats have the path's suffix, or none has one that looks like a file type, or the
            format cannot be written, or the path has the suffix of another format.
        UnknownComponentError: no format has that name.
        SpecError: the format has no such field, or the value is not valid.
    """
    registry = registry or default_registry()
    if chosen is None:
        suffix = "" if path is None else path.suffix.lower()
        fitting = [name for name, spec in formats(registry).items() if suffix and suffix in spec.suffixes]
        if len(fitting) > 1:
            raise ExternalModelError(
                f"several formats write {suffix} files: {', '.join(fitting)}", hint="Name one with --to."
            )
        directory = path is None or path.is_dir()
        if not fitting and (suffix in _OTHER_SUFFIXES or (not directory and _FILE_TYPE.fullmatch(suffix))):
            raise _unknown_suffix(suffix, registry)
        chosen = fitting[0] if fitting else DEFAULT
    if options:
        data = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
        chosen = {**data, **options}
    spec = _validated(chosen, registry)
    if not spec.can_write:
        names = [name for name, each in formats(registry).items() if each.can_write]
        hint = f"Formats that can be written: {', '.join(names)}."
        raise ExternalModelError(f"format {spec.component_name()!r} can be read but not written", hint=hint)
    if path is not None and not path.is_dir():
        _require_own_suffix(spec, path, registry)
    return spec


def _require_own_suffix(spec: FormatSpec, path: Path, registry: Registry) -> None:
    """Raise if a path has the suffix of another format, or none where programs recognize the format by it."""
    name, suffix = spec.component_name(), path.suffix.lower()
    if suffix in spec.suffixes or not (suffix in _suffixes(registry) or (spec.suffixes and spec.is_program)):
        return
    if not spec.suffixes:
        raise ExternalModelError(f"{path}: {name} writes a directory, not a {suffix} file", hint=f"As in: {path.stem}")
    wanted = path.with_suffix(spec.suffixes[0]).name
    raise ExternalModelError(f"{path}: {name} writes {' or '.join(spec.suffixes)} files", hint=f"As in: {wanted}")


def _suffixes(registry: Registry) -> list[str]:
    """Return the suffixes of all formats that can be written."""
    return [suffix for _, spec in sorted(formats(registry).items()) if spec.can_write for suffix in spec.suffixes]


def _unknown_suffix(suffix: str, registry: Registry) -> ExternalModelError:
    """Return the error for a path whose suffix is that of no format."""
    writable = {name: spec for name, spec in sorted(formats(registry).items()) if spec.can_write}
    own = _suffixes(registry)
    nearest = difflib.get_close_matches(suffix, own, n=1)
    meant = f"Did you mean {nearest[0]}? " if nearest else ""
    hint = (
        f"{meant}Formats that can be written: {', '.join(writable)}; suffixes: {', '.join(own)}. {DEFAULT} writes "
        f"a directory: choose a name without a suffix, or pass --to {DEFAULT}."
    )
    return ExternalModelError(f"no installed format writes {suffix} files", hint=hint)


def choose_family(
    model: ModelSpec,
    wanted: str | None = None,
    *,
    only: bool = False,
    among: Collection[str] | None = None,
    registry: Registry | None = None,
) -> tuple[FamilySpec, dict[str, Any]]:
    """Return a family that can express a model, and the configuration that does.

    Args:
        model: the model.
        wanted: the family to try first.
        only: try no other family than `wanted`.
        among: the families to choose from; all by default.
        registry: where families and components are looked up; by default what is installed.

    Raises:
        ExternalModelError: none can; gives the reasons of `wanted`, or of the closest family.
    """
    known = {name: each for name, each in families(registry).items() if among is None or name in among}
    if only and (clash := (registry or default_registry()).clashes("family").get(str(wanted))):
        raise ExternalModelError(clash)
    if only and wanted not in known:
        suggestion = did_you_mean(str(wanted), sorted(known))
        which = f"family {wanted!r} is not among those of the format" if among is not None else f"unknown family {wanted!r}"
        raise ExternalModelError(f"{which}; {suggestion}")
    order = sorted(known, key=lambda name: (name != wanted, known[name].rank, name))
    reasons: dict[str, list[str]] = {}
    # Families whose `config` fails are further from the model than any that writes one.
    failed: dict[str, list[str]] = {}
    for name in order[:1] if only else order:
        try:
            config = write_config(known[name], model, registry)
            result = differences(model, read_model(known[name], config, f"family {name!r}", registry))
        except ExternalModelError as error:
            failed[name] = [error.message]
            continue
        except _FAILED as error:
            failed[name] = [_missing(error)]
            continue
        if not result:
            return known[name], config
        reasons[name] = result
    reasons = reasons or failed
    if not reasons:
        raise ExternalModelError("no family is installed")
    closest = min(reasons, key=lambda name: len(reasons[name]))
    shown = reasons[closest]
    more = f"; and {len(shown) - 4} more" if len(shown) > 4 else ""
    raise ExternalModelError(
        f"{'family' if only else 'no family can express this model; the closest,'} {closest!r} "
        f"{'cannot express this model' if only else 'cannot'}: {'; '.join(shown[:4])}{more}",
        hint="Change the model to one that the family can express, or add a family for it.",
    )


def _missing(error: Exception) -> str:
    """Return what a model lacks for a family whose `config` raised an error: a component, or a setting of one."""
    if isinstance(error, AttributeError) and isinstance(error.obj, Component):
        return f"{error.obj.kind} {error.obj.component_name()!r} is not one that the family has"
    if isinstance(error, AttributeError) and error.obj is None:
        return f"it requires a component with {error.name!r}, which the model does not have"
    return "it requires settings that the model does not have"
