"""`gptkit plugins`: what is installed, what it brings, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console

if TYPE_CHECKING:
    from gptkit.core.registry import Plugin

_STYLES = {"active": "green", "disabled": "yellow", "broken": "red"}


def plugins(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Name every component, and show the traceback behind an error.")
    ] = False,
) -> None:
    """List the plugins: distribution and version, status, what each brings, and its error if it has one.

    Switch distributions off with GPTKIT_DISABLE=name,name.
    """
    from rich.text import Text

    from gptkit.core.registry import default_registry

    found = default_registry().plugins()
    rows = [
        [plugin.provenance, plugin.name, Text(plugin.status, style=_STYLES[plugin.status]), _brings(plugin)]
        for plugin in found
    ]
    columns: list[console.Column] = [("distribution", {"overflow": "fold"}), "plugin", "status", "brings"]
    console.stdout().print(console.table(columns, rows))
    for plugin in found:
        if plugin.error:
            console.out()
            console.out(f"{plugin.provenance} ({plugin.module}): {plugin.error}")
        if verbose:
            _details(plugin)
    faulty = [plugin for plugin in found if plugin.error]
    if any(plugin.detail for plugin in faulty) and not verbose:
        console.note("gptkit plugins --verbose shows what is behind it", style="dim")


def _brings(plugin: Plugin) -> str:
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
    for title, text in (("printed while it was loaded", plugin.printed), ("traceback", plugin.detail)):
        if text and text.strip():
            console.heading(f"{plugin.provenance}: {title}")
            console.out(text.rstrip())
