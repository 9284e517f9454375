"""Arguments that several commands share, and what a shell completes them with.

Completion runs at every press of the tab key: what it needs is imported inside, and it never fails.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "File",
    "FileOrRun",
    "Json",
    "Overrides",
    "RunFolder",
    "chosen",
    "complete_formats",
    "complete_kinds",
    "complete_names",
    "complete_runs",
    "complete_shipped",
    "complete_specs",
]

Completions = list[tuple[str, str]]


def complete_shipped(incomplete: str) -> Completions:
    """Names of shipped specs."""
    from gptkit.presets.catalog import shipped, summary

    with contextlib.suppress(Exception):
        return [(name, _short(summary(path))) for name, path in shipped().items() if name.startswith(incomplete)]
    return []


def complete_kinds(incomplete: str) -> Completions:
    """Kinds of components."""
    with contextlib.suppress(Exception):
        from gptkit.core.registry import default_registry
        from gptkit.reflect.docstring import parse

        kinds = default_registry().kinds().items()
        return [(kind, _short(parse(entry.cls.__doc__).summary)) for kind, entry in kinds if kind.startswith(incomplete)]
    return []


def complete_formats(incomplete: str) -> Completions:
    """Formats of external models."""
    with contextlib.suppress(Exception):
        from gptkit.core.registry import default_registry
        from gptkit.reflect.docstring import parse

        entries = default_registry().entries("format").items()
        return [(name, _short(parse(entry.cls.__doc__).summary)) for name, entry in entries if name.startswith(incomplete)]
    return []


def complete_names(ctx: typer.Context, incomplete: str) -> Completions:
    """Components of the kind that is already on the command line."""
    with contextlib.suppress(Exception):
        from gptkit.core.registry import default_registry
        from gptkit.reflect.docstring import parse

        entries = default_registry().entries(str(ctx.params.get("kind"))).items()
        return [(name, _short(parse(entry.cls.__doc__).summary)) for name, entry in entries if name.startswith(incomplete)]
    return []


def complete_specs(incomplete: str) -> Completions:
    """Spec files, and folders that may lead to some."""
    return [
        (str(path) + ("/" if path.is_dir() else ""), "") for path in _paths(incomplete, (".yaml", ".yml", ".toml", ".json"))
    ]


def complete_runs(incomplete: str) -> Completions:
    """Folders, runs among them."""
    return [(f"{path}/", "") for path in _paths(incomplete, ())]


def _short(text: str) -> str:
    """Text that stands beside a completion, which shells show on one line."""
    return textwrap.shorten(text, 60, placeholder=" …")


def _paths(incomplete: str, endings: tuple[str, ...]) -> Iterator[Path]:
    typed = Path(incomplete)
    folder, start = (typed, "") if incomplete.endswith("/") or not incomplete else (typed.parent, typed.name)
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            hidden = path.name.startswith(".") and not start.startswith(".")
            if path.name.startswith(start) and not hidden and (path.is_dir() or path.suffix in endings):
                yield path


File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A spec file (.yaml, .toml, .json), or the name of a shipped spec.",
        autocompletion=complete_specs,
    ),
]
FileOrRun = Annotated[
    str,
    typer.Argument(
        metavar="FILE|RUN",
        help="A spec file, the name of a shipped spec, or a run's folder.",
        autocompletion=complete_specs,
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, as in runs/gpt.", autocompletion=complete_runs)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="PATH=VALUE",
        help="Change a value of the spec, as in --set model.position=alibi. May be given several times.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def chosen(overrides: Any) -> list[str]:
    """The overrides given, none being an empty list."""
    return list(overrides or ())
