"""`gptkit plugins`: list installed plugins, their components and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console

if TYPE_CHECKING:
    from gptkit.core.registry import Plugin

_STYLES = {"active": "green", "disabled": "yellow", "broken": "red"}


def plugins(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List every component, and show the traceback of each error.")
    ] = False,
) -> None:
    """List installed plugins with version, status, components, and errors.

    Disable distributions with GPTKIT_DISABLE=name,name.
    """
    from rich.text import Text

    from gptkit.core.registry import default_registry

    registry = default_registry()
    if verbose:
        for kind in registry.kinds():
            registry.entries(kind)  # imports lazy components, so that their errors are shown
    installed = registry.plugins()
    rows = [
        [plugin.provenance, plugin.name, Text(plugin.status, style=_STYLES[plugin.status]), _counts(plugin)]
        for plugin in installed
    ]
    columns: list[console.Column] = [("distribution", {"overflow": "fold"}), "plugin", "status", "provides"]
    console.stdout().print(console.table(columns, rows))
    for plugin in installed:
        if plugin.error:
            console.out()
            console.out(f"{plugin.provenance} ({plugin.module}): {plugin.error}")
        if verbose:
            _details(plugin)
    if any(plugin.error and plugin.detail for plugin in installed) and not verbose:
        console.note("show tracebacks with: gptkit plugins --verbose", style="dim")


def _counts(plugin: Plugin) -> str:
    parts = []
    if plugin.kinds:
        parts.append(console.plural(len(plugin.kinds), "kind"))
    if plugin.components:
        parts.append(console.plural(len(plugin.components), "component"))
    return ", ".join(parts) or "nothing"


def _details(plugin: Plugin) -> None:
    by_kind: dict[str, list[str]] = {}
    for kind, name in plugin.components:
        by_kind.setdefault(kind, []).append(name)
    rows = [["kinds", ", ".join(plugin.kinds)]] if plugin.kinds else []
    rows += [[kind, ", ".join(sorted(names))] for kind, names in by_kind.items()]
    if rows:
        console.heading(f"{plugin.provenance}, {plugin.module}")
        console.stdout().print(console.table([("", {"style": "cyan"}), ""], rows, header=False))
    for title, text in (("output while loading", plugin.printed), ("traceback", plugin.detail)):
        if text and text.strip():
            console.heading(f"{plugin.provenance}: {title}")
            console.out(text.rstrip())
