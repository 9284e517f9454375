"""Documentation page of the public Python names; mkdocstrings expands their docstrings."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import gptkit
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.docs.places import DIRECTORY
from gptkit.reflect import docstring, prose
from gptkit.reflect.describe import describe_fields

__all__ = ["PAGE", "page"]

PAGE = "python-reference.md"

_GROUPS: dict[str, Sequence[str]] = {
    "Models and runs": (
        *("build", "open_spec", "train", "resume", "load", "Run", "GPT", "generate", "compare", "save_run"),
        *("import_model", "export_model", "quantize_run", "calibrate_run"),
    ),
    "Plugins and the registry": ("default_registry", "Registry", "LazyComponent", "Callback", "hookimpl"),
}
"""Headings, and the public names below them; specs and errors have their own sections, and new names the last one."""

_PLUGIN_TOOLS = (
    "gptkit.testing.run_checks",
    "gptkit.testing.checks_for",
    "gptkit.testing.instances",
    "gptkit.testing.Check",
)
"""Names that the tests of a plugin use."""


def page(registry: Registry) -> str:
    """Return the page as Markdown, with directives of mkdocstrings for functions and classes."""
    public = {name: getattr(gptkit, name) for name in gptkit.__all__}
    specs = [name for name, value in public.items() if _is(value, Spec)]
    errors = [name for name, value in public.items() if _is(value, Exception)]
    grouped = {name for names in _GROUPS.values() for name in names}
    others = sorted(set(public) - grouped - set(specs) - set(errors))
    parts = [
        "# Python reference",
        "The public names of `import gptkit`, from their docstrings. [Python](python.md) introduces them with examples; "
        f"the contracts of components are on the pages of the [kinds]({DIRECTORY}/index.md) and under "
        "[contracts](contracts.md).",
    ]
    for title, names in {**_GROUPS, "Other names": others}.items():
        if names:
            parts += [f"## {title}", *(_directive(f"gptkit.{name}", public[name]) for name in names)]
    parts += ["## Tests of plugins", *(_directive(path, _attribute(path)) for path in _PLUGIN_TOOLS)]
    parts += ["## Specs", "Fields, as in a spec file. All specs are immutable; `replace` returns a changed copy."]
    for name in sorted(specs, key=lambda name: len(public[name].model_fields)):
        summary = prose.inline(docstring.parse(public[name].__doc__).summary)
        parts += [f"### gptkit.{name}", summary, *_fields(public[name])]
    parts += [
        "## Errors",
        "All are raised for problems that the user can correct.",
        *_errors(public[name] for name in errors),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _is(value: Any, base: type[Any]) -> bool:
    return inspect.isclass(value) and issubclass(value, base)


def _attribute(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _directive(path: str, value: Any) -> str:
    """Return the directive for a name, under its public path."""
    name = path.rpartition(".")[2]
    real = f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else f"gptkit.core.hooks.{name}"
    return f'::: {real}\n    options:\n      heading: "{path}"\n      toc_label: "{path.rpartition(".")[2]}"'


def _fields(cls: type[Spec]) -> Iterable[str]:
    for field in describe_fields(cls):
        if "." in field.name:
            continue
        default = "required" if field.default is None else f"default `{field.default}`"
        facts = "; ".join(part for part in (f"`{field.type}`", prose.inline(field.constraints), default) if part)
        yield f"`{field.name}`\n:   {prose.inline(field.description)} ({facts})"


def _errors(classes: Iterable[type[Exception]]) -> Iterable[str]:
    for cls in sorted(classes, key=lambda cls: (len(cls.__mro__), cls.__name__)):
        base = cls.__mro__[1].__name__
        yield f"`gptkit.{cls.__name__}`\n:   {prose.inline(docstring.parse(cls.__doc__).summary)} A subclass of `{base}`."
