"""Documentation page of model families, and of the presets of released models."""

from __future__ import annotations

from pathlib import Path

from gptkit.core.registry import Registry
from gptkit.docs.places import DIRECTORY
from gptkit.presets.catalog import groups, presets, summary
from gptkit.reflect import docstring, prose

__all__ = ["PAGE", "page"]

PAGE = "models.md"


def page(registry: Registry) -> str:
    """Return the page as Markdown: a table of registered families, and one of the presets of released models."""
    families = []
    for name, entry in registry.entries("family").items():
        model_type, architecture = (getattr(entry.cls, key, "") for key in ("model_type", "architecture"))
        what = prose.inline(docstring.parse(entry.cls.__doc__).summary)
        families.append([f"[{name}]({DIRECTORY}/family/{name}.md)", f"`{model_type}`", f"`{architecture}`", what])
    models = [_model(name, path) for name, path in groups(registry)["released models"].items()]
    shipped = [
        [f"`{preset.name}`", prose.inline(summary(preset.path)), f"`{preset.plugin.provenance}`"]
        for preset in presets(registry).values()
        if preset.plugin is not None
    ]
    parts = [
        "# Families and released models",
        f"`gptkit import` and `gptkit export` support these {len(families)} families. `model_type` is the value in "
        "config.json, and the class is the transformers class that loads an export. Plugins can "
        "[add families](families.md#adding-a-family).",
        prose.table(["family", "model_type", "class", "description"], families),
        "## Presets of released models",
        "Each preset is a short spec file with the model's shape and vocabulary size. `gptkit new --from NAME` copies it, "
        "`gptkit show NAME` shows its layers, and `gptkit import` converts the published weights to a run. The numbers of "
        "parameters equal those of transformers for the published configuration.",
        prose.table(["name", "parameters", "description"], models),
    ]
    if shipped:
        parts += ["## Presets of plugins", prose.table(["name", "description", "shipped by"], shipped)]
    return "\n\n".join(parts) + "\n"


def _model(name: str, path: Path) -> list[str]:
    parameters, _, description = summary(path).partition(" parameters; ")
    return [f"`{name}`", parameters, prose.inline(description)]
