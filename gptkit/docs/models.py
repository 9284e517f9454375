"""The page of model families: what is read and written of other libraries' models, and which released ones are shipped."""

from __future__ import annotations

from pathlib import Path

from gptkit.core.registry import Registry
from gptkit.docs.places import FOLDER
from gptkit.presets.catalog import groups, presets, summary
from gptkit.reflect import docstring, prose

__all__ = ["PAGE", "page"]

PAGE = "models.md"


def page(registry: Registry) -> str:
    """Markdown: a table of the families that are registered, and one of the shipped specs of released models."""
    families = []
    for name, entry in registry.entries("family").items():
        model_type, architecture = (getattr(entry.cls, key, "") for key in ("model_type", "architecture"))
        what = prose.inline(docstring.parse(entry.cls.__doc__).summary)
        families.append([f"[{name}]({FOLDER}/family/{name}.md)", f"`{model_type}`", f"`{architecture}`", what])
    models = [_model(name, path) for name, path in groups(registry)["released models"].items()]
    shipped = [
        [f"`{preset.name}`", prose.inline(summary(preset.path)), f"`{preset.plugin.provenance}`"]
        for preset in presets(registry).values()
        if preset.plugin is not None
    ]
    parts = [
        "# Families and released models",
        f"`gptkit import` reads and `gptkit export` writes models of these {len(families)} families, in the words of "
        "transformers: `model_type` is what config.json says, the class is what loads an export. A plugin may bring more; "
        "see [how](families.md#adding-a-family).",
        prose.table(["family", "model_type", "class", "what it is"], families),
        "## Released models to start from",
        "The shape of each is a short spec file with its vocabulary's size. `gptkit new --from NAME` gives you a copy to "
        "change and to train, `gptkit show NAME` says what its layers are made of, and `gptkit import` makes a run of the "
        "published weights. Parameters are counted, and equal those that transformers counts from the published "
        "configuration.",
        prose.table(["name", "parameters", "what it is"], models),
    ]
    if shipped:
        parts += ["## Presets of plugins", prose.table(["name", "what it is", "shipped by"], shipped)]
    return "\n\n".join(parts) + "\n"


def _model(name: str, path: Path) -> list[str]:
    parameters, _, what = summary(path).partition(" parameters; ")
    return [f"`{name}`", parameters, prose.inline(what)]
