"""`gptkit new`: write a spec file from a preset."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import complete_shipped
from gptkit.core.commands import command
from gptkit.core.errors import GptkitError, SpecError

SCHEMA = "gptkit.schema.json"


def new(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The file to write; NAME.yaml of the preset by default.", show_default=False),
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="NAME", help="The preset to copy.", autocompletion=complete_shipped)
    ] = "tiny",
    listed: Annotated[bool, typer.Option("--list", help="List the presets and exit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file, which is kept as FILE.old.")] = False,
    bare: Annotated[
        bool, typer.Option("--no-schema", help=f"Do not write {SCHEMA}, which editors use for completion.")
    ] = False,
) -> None:
    """Write a commented spec file from a preset.

    List the presets with: gptkit new --list.
    """
    from gptkit.cli.schema import require_replaceable, write_schema
    from gptkit.core.atomic import write_text
    from gptkit.presets.catalog import find

    if listed:
        _list()
        return
    text = find(start).read_text(encoding="utf-8")
    target = file or Path(f"{start}.yaml")
    if target.suffix.lower() not in (".yaml", ".yml"):
        raise GptkitError(f"{target} does not end in .yaml", hint=f"Write {target.with_suffix('.yaml')}.")
    if target.exists() and (target.is_dir() or not force):
        raise GptkitError(
            f"{target} already exists", hint="Choose another name, or replace it with --force, which keeps it as FILE.old."
        )
    if not target.parent.is_dir():
        hint = f"Create it with: {command('mkdir -p', target.parent)}."
        raise GptkitError(f"directory {target.parent} not found", hint=hint)
    if not bare:
        require_replaceable(target.with_name(SCHEMA))
    kept = _keep(target)
    write_text(target, _named(text, target.stem))
    console.out(f"{target}: created from preset {start}")
    if kept is not None:
        console.out(f"{kept}: the previous file")
    if not bare:
        write_schema(target.with_name(SCHEMA))
        console.out(f"{target.with_name(SCHEMA)}: JSON Schema for editors")
    if _needs_weights(target):
        source = "SOURCE is a run, a directory saved by transformers, a GGUF file or a safetensors file"
        console.note(f"next: {command('gptkit train', target)} --init SOURCE, where {source}", style="dim")
    else:
        console.note(f"next: {command('gptkit check', target)}, then: {command('gptkit train', target)}", style="dim")


def _needs_weights(target: Path) -> bool:
    """Return whether the new spec is trained from existing weights, and print the warnings that apply on this machine."""
    from gptkit.runs.cautions import cautions, weights_caution
    from gptkit.runs.opening import open_spec

    try:
        opened = open_spec(target)
    except SpecError as error:
        if [problem.path for problem in error.problems] == [("model",)]:
            return True  # its model is that of the weights
        raise
    without_weights = weights_caution(opened.spec)  # the next command names them
    for caution in cautions(opened.spec, opened.base):
        if caution != without_weights:
            console.warn(caution)
    return without_weights is not None


def _keep(target: Path) -> Path | None:
    """Rename the file that will be replaced; return its new name."""
    from gptkit.core.atomic import writing

    if not target.exists() and not target.is_symlink():
        return None
    names = (target.with_name(f"{target.name}.old{number or ''}") for number in itertools.count())
    kept = next(path for path in names if not path.exists() and not path.is_symlink())
    with writing(kept):
        target.rename(kept)
    return kept


def _list() -> None:
    """Print the presets by group, with the sizes of released models."""
    from gptkit.presets.catalog import groups, shipped

    width = max(map(len, shipped()))
    for group, specs in groups().items():
        rows = [[name, *_described(path)] for name, path in specs.items()]
        columns: list[console.Column] = [("name", {"no_wrap": True, "min_width": width}), "description"]
        if any(row[1] for row in rows):
            columns.insert(1, ("parameters", {"no_wrap": True, "justify": "right"}))
        else:
            rows = [[row[0], row[2]] for row in rows]
        console.heading(group)
        console.stdout().print(console.table(columns, rows, header=False))


def _described(path: Path) -> tuple[str, str]:
    """Return the size of a released model (``0.6 B``; empty for other presets), and its description."""
    from gptkit.presets.catalog import summary

    text = summary(path)
    size = re.match(r"([\d,]+) parameters; ", text)
    if size is None:
        return "", text
    number = int(size[1].replace(",", ""))
    return f"{number / 1e9:.1f} B" if number >= 0.9995e9 else f"{number / 1e6:.0f} M", text[size.end() :]


def _named(text: str, name: str) -> str:
    """Return the spec with its title replaced by the file's name."""
    plain = re.fullmatch(r"[A-Za-z][\w.-]*", name) and name.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
        "on",
        "off",
    )
    written = name if plain else json.dumps(name, ensure_ascii=False)

    def renamed(match: re.Match[str]) -> str:
        line = f"name: {written}"
        # A comment that follows keeps its column.
        return f"{line} ".ljust(len(match[0])) if match["space"] else line

    return re.sub(r"^name: \S+(?P<space> *)(?=#|$)", renamed, text, count=1, flags=re.MULTILINE)
