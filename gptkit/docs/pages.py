"""The documentation of what is registered, as Markdown files: a pure function of the registry.

Nothing here knows mkdocs; `mkdocs_hook` hands the pages over, and `write` puts them into a folder for any other tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gptkit.core.registry import Plugin, Registry
from gptkit.core.spec import Spec
from gptkit.docs.places import Place, inside_components, places
from gptkit.reflect import docstring, prose
from gptkit.reflect.compatibility import compatibility
from gptkit.reflect.contract import contract
from gptkit.reflect.describe import ComponentDoc, FieldDoc, describe, describe_fields

__all__ = ["FOLDER", "navigation", "pages", "write"]

FOLDER = "components"
PLUGINS = "plugins.md"


def pages(registry: Registry, *, root: type[Spec] | None = None) -> dict[str, str]:
    """All pages by path: an index of kinds, a page for each kind and each component, and the plugins.

    Args:
        root: the class of a whole spec file; with it the pages say where in a file a component stands.
    """
    found = {f"{FOLDER}/index.md": _index(registry), PLUGINS: _plugins(registry)}
    for kind in registry.kinds():
        spots = places(root, kind) if root is not None else []
        first = spots[0] if spots else Place((kind,))
        docs = [describe(entry, registry, path=first.path, listed=first.listed) for entry in registry.entries(kind).values()]
        found[f"{FOLDER}/{kind}/index.md"] = _kind(registry, kind, docs, spots)
        for doc in docs:
            found[f"{FOLDER}/{kind}/{doc.name}.md"] = _component(registry, doc)
    return found


def write(folder: Path, registry: Registry, *, root: type[Spec] | None = None) -> list[Path]:
    """Put all generated pages into a folder, which is made where there is none; return the files written.

    To those of `pages` come the page of what is checked, for which the conformance kit runs (a minute or so), and the page
    of families and released models: the pages that link to each other.
    """
    from gptkit.docs import conformance, models  # they use this module

    written = []
    reports = {made.PAGE: made.page(registry) for made in (conformance, models)}
    for path, text in {**pages(registry, root=root), **reports}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written


def navigation(registry: Registry) -> list[Any]:
    """The pages below "Components" in the form of mkdocs' `nav`."""
    nav: list[Any] = [f"{FOLDER}/index.md"]
    for kind in registry.kinds():
        inside = [{name: f"{FOLDER}/{kind}/{name}.md"} for name in registry.names(kind)]
        nav.append({kind: [f"{FOLDER}/{kind}/index.md", *inside]})
    return nav


# -- single pages ----------------------------------------------------------------------------------------------------


def _index(registry: Registry) -> str:
    rows = []
    for kind, entry in registry.kinds().items():
        names = ", ".join(f"[{name}]({kind}/{name}.md)" for name in registry.names(kind)) or "none installed"
        rows.append([f"**[{kind}]({kind}/index.md)**", prose.inline(docstring.parse(entry.cls.__doc__).summary), names])
    count = sum(len(registry.names(kind)) for kind in registry.kinds())
    return _page(
        "# Components",
        f"A spec file chooses every part by name. These {count} components of {len(rows)} kinds were installed when this "
        f"page was built; a plugin adds its own, and they appear here and in `gptkit components` alike. Where they came "
        f"from is on the page of [plugins](../{PLUGINS}).",
        prose.table(["kind", "what it is", "components"], rows),
        _with_title("## Which attention takes which position", compatibility(registry, up="")),
    )


def _kind(registry: Registry, kind: str, docs: Sequence[ComponentDoc], spots: Sequence[Place]) -> str:
    entry = registry.kinds()[kind]
    rows = [[f"[{doc.name}]({doc.name}.md)", prose.inline(doc.summary), f"`{doc.provenance}`"] for doc in docs]
    fields = list(describe_fields(entry.cls))
    return _page(
        f"# {kind}",
        prose.prose(entry.cls.__doc__ or ""),
        "## Components",
        prose.table(["name", "what it does", "brought by"], rows) if rows else "None is installed.",
        _with_title("## Where it stands", _where(registry, kind, spots)),
        _with_title("## Fields that all of them have", _fields(registry, fields)),
        _with_title(
            "## Which attention takes which position",
            compatibility(registry, up="../") if kind in ("position", "attention") else "",
        ),
        "## Writing one",
        contract(entry.cls),
        f"The kind is brought by `{entry.plugin.provenance}`.",
    )


def _component(registry: Registry, doc: ComponentDoc) -> str:
    facts = [
        ("Paper", prose.paper(doc.paper)),
        ("Kind", f"[{doc.kind}](index.md)"),
        ("Brought by", f"`{doc.provenance}`"),
        ("Source", f"`{doc.file}`"),
        ("Former names", ", ".join(f"`{alias}`" for alias in doc.aliases)),
        ("Former fields", ", ".join(f"`{old}` is now `{new}`" for old, new in doc.renamed_fields.items())),
    ]
    return _page(
        f"# {doc.name}",
        prose.inline(doc.summary),
        prose.code(doc.snippet, "yaml"),
        prose.prose(doc.body),
        _with_title("## Formula", prose.code(doc.formula) if doc.formula else ""),
        _with_title("## Shapes", prose.code(doc.shapes) if doc.shapes else ""),
        "## Fields",
        _fields(registry, doc.fields) or "It has none.",
        _with_title("With every field written out:", prose.code(doc.full_snippet, "yaml") if doc.fields else ""),
        _with_title("## Notes", prose.prose(doc.notes)),
        "## About",
        "\n".join(f"- {title}: {text}" for title, text in facts if text),
    )


def _plugins(registry: Registry) -> str:
    plugins = registry.plugins()
    broken = [plugin for plugin in plugins if plugin.status == "broken" or plugin.error]
    rows = [[f"`{plugin.provenance}`", f"`{plugin.module}`", plugin.status, _brings(registry, plugin)] for plugin in plugins]
    warnings = [
        prose.admonition("failure", plugin.provenance, f"`{plugin.module}`: {prose.inline(plugin.error or 'broken')}")
        for plugin in broken
    ]
    return _page(
        "# Plugins",
        "Everything here came through the same door, gptkit's own components included: an entry point of the group "
        "`gptkit`. A plugin that fails is shown with its error, and the rest works.",
        *warnings,
        prose.table(["distribution", "module", "status", "brings"], rows) if rows else "None is installed.",
    )


def _brings(registry: Registry, plugin: Plugin) -> str:
    lines = [", ".join(f"[{kind}]({FOLDER}/{kind}/index.md)" for kind in plugin.kinds)]
    lines[0] = f"the kinds {lines[0]}" if lines[0] else ""
    usable = {(kind, name) for kind in registry.kinds() for name in registry.names(kind)}
    for kind in registry.kinds():
        names = sorted(name for of, name in plugin.components if of == kind and (of, name) in usable)
        links = ", ".join(f"[{name}]({FOLDER}/{kind}/{name}.md)" for name in names)
        lines.append(f"{kind}: {links}" if links else "")
    return "<br>".join(line for line in lines if line) or "nothing"


# -- parts of pages --------------------------------------------------------------------------------------------------


def _fields(registry: Registry, fields: Iterable[FieldDoc]) -> str:
    rows = [
        [
            f"`{field.name}`",
            "; ".join(part for part in (_type(registry, field), prose.inline(field.constraints)) if part),
            "**required**" if field.default is None else f"`{field.default}`",
            prose.inline(field.description),
        ]
        for field in fields
    ]
    return prose.table(["field", "type", "default", "meaning"], rows) if rows else ""


def _type(registry: Registry, field: FieldDoc) -> str:
    parts = []
    for part in field.type.split(" | "):
        lead, kind = ("list of ", part.removeprefix("list of ")) if part.startswith("list of ") else ("", part)
        known = kind in field.kinds and kind in registry.kinds()
        parts.append(f"{lead}[{kind}](../{kind}/index.md)" if known else f"`{part}`")
    return " or ".join(parts)


def _where(registry: Registry, kind: str, spots: Sequence[Place]) -> str:
    lines = [f"- `{spot.dotted}`{', a list' if spot.listed else ''}" for spot in spots]
    lines += [
        f"- `{field}` of [{outer} {name}](../{outer}/{name}.md)" for outer, name, field in inside_components(registry, kind)
    ]
    return "\n".join(lines)


def _with_title(title: str, body: str) -> str:
    return f"{title}\n\n{body}" if body else ""


def _page(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
