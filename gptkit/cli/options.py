"""Arguments shared by several commands, and their shell completion.

Completion runs at every press of the tab key, so it imports what it needs lazily and ignores exceptions.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Compile",
    "Decoding",
    "Engine",
    "File",
    "FileOrRun",
    "Jobs",
    "Json",
    "Overflow",
    "Overrides",
    "Precision",
    "Quiet",
    "RunDirectory",
    "Samplers",
    "Seed",
    "Speculate",
    "Step",
    "Stop",
    "Trace",
    "chosen",
    "complete_drafters",
    "complete_engines",
    "complete_formats",
    "complete_kinds",
    "complete_names",
    "complete_precisions",
    "complete_runs",
    "complete_shipped",
    "complete_specs",
]

Completions = list[tuple[str, str]]


class Overflow(Enum):
    """Behavior at the model's context length."""

    slide = "slide"
    stop = "stop"


def complete_shipped(incomplete: str) -> Completions:
    """Complete names of presets."""
    from gptkit.presets.catalog import shipped, summary

    with contextlib.suppress(Exception):
        return [(name, _short(summary(path))) for name, path in shipped().items() if name.startswith(incomplete)]
    return []


def complete_kinds(incomplete: str) -> Completions:
    """Complete kinds of components, and sections of spec files."""
    with contextlib.suppress(Exception):
        from gptkit.core.registry import default_registry
        from gptkit.reflect.docstring import parse
        from gptkit.reflect.sections import sections
        from gptkit.runs.spec import ExperimentSpec

        docs = {name: section.cls.__doc__ for name, section in sections(ExperimentSpec).items()}
        docs |= {kind: entry.cls.__doc__ for kind, entry in default_registry().kinds().items()}
        return [(kind, _short(parse(doc).summary)) for kind, doc in docs.items() if kind.startswith(incomplete)]
    return []


def complete_formats(incomplete: str) -> Completions:
    """Complete formats of external models."""
    return _components("format", incomplete)


def complete_precisions(incomplete: str) -> Completions:
    """Complete precisions for inference."""
    return _components("precision", incomplete)


def complete_drafters(incomplete: str) -> Completions:
    """Complete drafters."""
    return _components("drafter", incomplete)


def complete_engines(incomplete: str) -> Completions:
    """Complete engines."""
    return _components("engine", incomplete)


def complete_names(ctx: typer.Context, incomplete: str) -> Completions:
    """Complete components of the kind given on the command line."""
    return _components(str(ctx.params.get("kind")), incomplete)


def complete_specs(incomplete: str) -> Completions:
    """Complete spec files and directories."""
    return [
        (str(path) + ("/" if path.is_dir() else ""), "") for path in _paths(incomplete, (".yaml", ".yml", ".toml", ".json"))
    ]


def complete_runs(incomplete: str) -> Completions:
    """Complete directories, which include runs."""
    return [(f"{path}/", "") for path in _paths(incomplete, ())]


def _components(kind: str, incomplete: str) -> Completions:
    """Complete the names of a kind's components."""
    with contextlib.suppress(Exception):
        from gptkit.core.registry import default_registry
        from gptkit.reflect.docstring import parse

        entries = default_registry().entries(kind).items()
        return [(name, _short(parse(entry.cls.__doc__).summary)) for name, entry in entries if name.startswith(incomplete)]
    return []


def _short(text: str) -> str:
    """Shorten the description of a completion to one line."""
    return textwrap.shorten(text, 60, placeholder=" …")


def _paths(incomplete: str, endings: tuple[str, ...]) -> Iterator[Path]:
    typed = Path(incomplete)
    directory, start = (typed, "") if incomplete.endswith("/") or not incomplete else (typed.parent, typed.name)
    with contextlib.suppress(OSError):
        for path in sorted(directory.iterdir()):
            hidden = path.name.startswith(".") and not start.startswith(".")
            if path.name.startswith(start) and not hidden and (path.is_dir() or path.suffix in endings):
                yield path


File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A spec file (.yaml, .toml, .json), or the name of a preset.",
        autocompletion=complete_specs,
    ),
]
FileOrRun = Annotated[
    str,
    typer.Argument(
        metavar="FILE|RUN",
        help="A spec file, the name of a preset, or a run directory.",
        autocompletion=complete_specs,
    ),
]
RunDirectory = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, for example runs/gpt.", autocompletion=complete_runs)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="PATH=VALUE",
        help="Override a value of the spec, for example model.position=alibi. Repeatable.",
    ),
]
Samplers = Annotated[
    list[str] | None,
    typer.Option(
        "--sampler",
        metavar="NAME[=VALUE]",
        help="Replace the run's samplers, for example --sampler temperature=0.8 --sampler top-k=40. Repeatable.",
    ),
]
Decoding = Annotated[
    str | None,
    typer.Option(
        "--decoding",
        metavar="NAME[=VALUE]",
        help="Search for the continuation, for example --decoding beam=8 or --decoding '{name: contrastive, k: 5}'; "
        "without --sampler, in the model's distribution.",
        show_default=False,
    ),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        "--speculate",
        metavar="DRAFTER[=VALUE]",
        help="Generate faster with a drafter, for example ngram, ngram=6, mtp or draft-run=runs/small; texts stay the same.",
        autocompletion=complete_drafters,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Compute with another engine (gptkit components engine), for example llama.cpp of gptkit-llamacpp, or with "
        "fields '{name: llama.cpp, type: q8_0}'.",
        autocompletion=complete_engines,
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, metavar="N", help="Random seed; the same seed generates the same text.", show_default=False
    ),
]
Stop = Annotated[list[str] | None, typer.Option("--stop", metavar="TEXT", help="Stop at this text. Repeatable.")]
Step = Annotated[
    int | None,
    typer.Option("--step", metavar="N", help="Step of the checkpoint; the latest by default.", show_default=False),
]
Trace = Annotated[
    str | None,
    typer.Option(
        "--trace",
        metavar="[FILE]",
        help="Show why each token was drawn: what each sampler left; or write it to FILE (.html or .json).",
        show_default=False,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Convert the weights while loading: bf16, int8, int4, or with fields '{name: int4, group: 64}'.",
        autocompletion=complete_precisions,
        show_default=False,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        help="Decode with a step compiled for the model's architecture: in the background at its first use (a minute), and "
        "kept in the cache directory (GPTKIT_CACHE). For long texts.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Trainings at once; by default as many as cores and memory suffice for.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def chosen(overrides: Any) -> list[str]:
    """Return the given overrides as a list."""
    return list(overrides or ())
