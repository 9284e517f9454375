"""Documentation page of model families, and gallery of the presets with their diagrams."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import cast

from gptkit.core.registry import Registry
from gptkit.diagrams.drawing import svg
from gptkit.diagrams.outline import Outline
from gptkit.docs import side_by_side, uncovered
from gptkit.docs.figures import elements
from gptkit.docs.places import DIRECTORY
from gptkit.docs.relations import preset_specs
from gptkit.interop.conversion import families
from gptkit.interop.wrappers import wrappers
from gptkit.kinds.family import FamilySpec
from gptkit.presets.catalog import family, groups, summary
from gptkit.reflect import docstring, prose
from gptkit.runs.spec import ExperimentSpec, spec_outline

__all__ = ["PAGE", "assets", "page"]

PAGE = "models.md"
_STRIP = 220.0
_DIAGRAMS = "diagrams"
"""Directory of the diagrams, one file for each preset."""


def page(registry: Registry) -> str:
    """Return the page as Markdown: a table of registered families, and a gallery of the presets."""
    families = []
    for name, entry in registry.entries("family").items():
        cls = cast("type[FamilySpec]", entry.cls)
        what = prose.inline(docstring.parse(cls.__doc__).summary)
        types = ", ".join(f"`{each}`" for each in (cls.model_type, *cls.other_model_types()))
        families.append([f"[{name}]({DIRECTORY}/family/{name}.md)", types, f"`{cls.architecture}`", what])
    specs = preset_specs(registry)
    parts = [
        "---\nhide: [toc]\n---",
        "# Families and released models",
        "Each preset is a short spec file. Those of released models have the model's shape and vocabulary size, and `gptkit "
        "import` converts the published weights to a run; their numbers of parameters equal those of transformers for the "
        "published configuration. `gptkit new --from NAME` copies a preset, `gptkit show NAME` shows its layers and sizes, "
        "and `gptkit diff NAME OTHER --html FILE` compares two of them. The cells "
        "of a preset are its layers, in a color for each type.",
    ]
    for group, files in groups(registry).items():
        entries = [_entry(name, path, specs[name], registry) for name, path in files.items() if name in specs]
        if entries:
            title = group if group.startswith("from ") else group.capitalize()
            parts += [f"## {prose.inline(title)}", '<div class="gallery">\n' + "\n".join(entries) + "\n</div>"]
    parts += [
        side_by_side.section(registry),
        "## Families",
        f"`gptkit import` and `gptkit export` support these {len(families)} families. `model_type` is the value in "
        "config.json, of an export the first one, and the class is the transformers class that loads an export. Plugins can "
        "[add families](families.md#adding-a-family).",
        prose.table(["family", "model_type", "class", "description"], families),
        _multimodal(registry),
        uncovered.section(),
    ]
    return "\n\n".join(parts) + "\n"


def _multimodal(registry: Registry) -> str:
    """Return the list of multimodal models as Markdown: their types by the family of the language model."""
    named = {family.model_type: name for name, family in families(registry).items()}
    by_family: dict[str, list[str]] = {}
    for model_type, language in wrappers().items():
        if language in named:
            by_family.setdefault(named[language], []).append(f"`{model_type}`")
    rows = [[f"[{name}]({DIRECTORY}/family/{name}.md)", ", ".join(types)] for name, types in sorted(by_family.items())]
    if not rows:
        return ""
    return "\n\n".join(
        (
            "### Multimodal models",
            "`gptkit import` reads the language models of these multimodal ones from their directories, and skips the "
            "tensors of other modalities. The configuration may name a language model of another family. Further families "
            "read their own multimodal models, such as `gemma3` and `mistral`.",
            prose.table(["language model", "model_type of the multimodal model"], rows),
        )
    )


def assets(registry: Registry) -> dict[str, str]:
    """Return the diagrams of the presets by path."""
    diagrams = {_file(name): svg(spec_outline(spec), standalone=True) for name, spec in preset_specs(registry).items()}
    return diagrams | side_by_side.assets(registry)


def _file(name: str) -> str:
    return f"{_DIAGRAMS}/{name}.svg"


def _entry(name: str, path: Path, spec: ExperimentSpec, registry: Registry) -> str:
    """Return a preset as HTML: sizes, description, the command that copies it, its diagram, folded, and links."""
    model = spec.model
    parameters, separator, description = summary(path).partition(" parameters; ")
    if not separator:
        parameters, description = "", summary(path)
    sizes = [f"{parameters} parameters"] if parameters else []
    sizes += [f"{model.n_layers} layers", f"width {model.d_model:,}", f"context {model.context_length:,}"]
    text = escape(description[:1].upper() + description[1:])
    outline = spec_outline(spec)
    drawing = svg(outline)
    width, height = (drawing.partition(f'{side}="')[2].partition('"')[0] for side in (" width", " height"))
    links = [f'<a href="spec-builder.html#preset={escape(name)}">Open in the spec builder</a>']
    of = family(path)
    if of is not None and of in registry.names("family"):
        links.append(f'<a href="{DIRECTORY}/family/{escape(of)}.html">Family {escape(of)}</a>')
    picture = f'src="{_file(escape(name))}" alt="Architecture of {escape(name)}" width="{width}" height="{height}"'
    return (
        f'<section class="preset" id="{escape(name)}">\n<h3>{escape(name)}</h3>\n'
        f'<p class="preset-sizes">{escape(" · ".join(sizes))}</p>\n{_layers(outline)}\n<p>{text}</p>\n'
        f"<pre><code>gptkit new my.yaml --from {escape(name)}</code></pre>\n"
        f'<details><summary>Diagram</summary><img {picture} loading="lazy"></details>\n'
        f"<p>{' · '.join(links)}</p>\n</section>"
    )


def _layers(outline: Outline) -> str:
    """Return a cell for each layer, colored by its type, as SVG."""
    step = _STRIP / len(outline.sequence)
    gap = min(1.5, step / 4)
    cells = [
        elements.rect(index * step, 0, step - gap, 10, f"fg-b fg-{kind % 4 + 1}", rx=min(1.5, step / 4))
        for index, kind in enumerate(outline.sequence)
    ]
    types = [f"{kind.times} × {kind.label or kind.title}" for kind in outline.types]
    return elements.drawing(
        _STRIP,
        10,
        cells,
        title=", ".join(types),
        description="Layers from the first to the last.",
        key=f"layers-{outline.title}",
    )
