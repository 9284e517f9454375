"""`gptkit new`: a spec file to start from."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import complete_shipped
from gptkit.cli.schema import require_replaceable, write_schema
from gptkit.core.atomic import write_text, writing
from gptkit.core.errors import GptkitError
from gptkit.presets.catalog import find, groups, shipped, summary

SCHEMA = "gptkit.schema.json"


def new(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The file to write. By default NAME.yaml.", show_default=False)
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="NAME", help="The shipped spec to start from.", autocompletion=complete_shipped)
    ] = "tiny",
    listed: Annotated[bool, typer.Option("--list", help="Show the shipped specs and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there; it is kept as FILE.old.")] = False,
    bare: Annotated[
        bool, typer.Option("--no-schema", help=f"Do not write {SCHEMA}, with which editors complete and check the spec.")
    ] = False,
) -> None:
    """Write a commented spec file to start from.

    See what there is with gptkit new --list.
    """
    if listed:
        _list()
        return
    text = find(start).read_text(encoding="utf-8")
    target = file or Path(f"{start}.yaml")
    if target.suffix.lower() not in (".yaml", ".yml"):
        raise GptkitError(f"{target} does not end in .yaml", hint=f"Write {target.with_suffix('.yaml')}.")
    hint = "Choose another name, or replace it with --force, which keeps it as FILE.old."
    if target.exists() and (target.is_dir() or not force):
        raise GptkitError(
            f"{target} is there already", hint="Choose another name, or replace it with --force, which keeps it as FILE.old."
        )
    if not target.parent.is_dir():
        hint = f"Make it first: mkdir -p {shlex.quote(str(target.parent))}. Or name a file elsewhere."
        raise GptkitError(f"there is no folder {target.parent}", hint=hint)
    if not bare:
        require_replaceable(target.with_name(SCHEMA))
    kept = _keep(target)
    write_text(target, _named(text, target.stem))
    console.out(f"{target}: a copy of {start}, to be changed as you like")
    if kept is not None:
        console.out(f"{kept}: the file that was there")
    if not bare:
        write_schema(target.with_name(SCHEMA))
        console.out(f"{target.with_name(SCHEMA)}: with it your editor completes the spec")
    console.note(f"next: gptkit check {target}, then: gptkit train {target}", style="dim")


def _keep(target: Path) -> Path | None:
    """Rename the file that is going to be replaced; return its new name."""
    if not target.exists() and not target.is_symlink():
        return None
    names = (target.with_name(f"{target.name}.old{number or ''}") for number in itertools.count())
    kept = next(path for path in names if not path.exists() and not path.is_symlink())
    with writing(kept):
        target.rename(kept)
    return kept


def _list() -> None:
    """The shipped specs, group by group; of released models their sizes, too."""
    width = max(map(len, shipped()))
    for group, specs in groups().items():
        rows = [[name, *_described(path)] for name, path in specs.items()]
        columns: list[console.Column] = [("name", {"no_wrap": True, "min_width": width}), "what it is"]
        if any(row[1] for row in rows):
            columns.insert(1, ("parameters", {"no_wrap": True, "justify": "right"}))
        else:
            rows = [[row[0], row[2]] for row in rows]
        console.heading(group)
        console.stdout().print(console.table(columns, rows, header=False))


def _described(path: Path) -> tuple[str, str]:
    """How large a released model is (``0.6 B``; empty for other specs), and what it is."""
    text = summary(path)
    found = re.match(r"([\d,]+) parameters; ", text)
    if found is None:
        return "", text
    number = int(found[1].replace(",", ""))
    return f"{number / 1e9:.1f} B" if number >= 0.9995e9 else f"{number / 1e6:.0f} M", text[found.end() :]


def _named(text: str, name: str) -> str:
    """The spec with the file's own name as its title."""
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
    return re.sub(r"^name: \S+", lambda _: f"name: {written}", text, count=1, flags=re.MULTILINE)
