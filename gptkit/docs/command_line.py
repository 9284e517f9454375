"""Documentation page of the commands, generated from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from gptkit.core.registry import Registry
from gptkit.reflect import prose

__all__ = ["PAGE", "page"]

PAGE = "command-line.md"
EXAMPLE = "For example:"
"""First words of a paragraph of a help text whose lines are commands."""


def page(registry: Registry) -> str:
    """Return the page as Markdown: every command with its arguments, options and defaults, in the order of the help."""
    from gptkit.cli.main import app

    group: Any = typer.main.get_group(app)
    context = typer.Context(group, info_name="gptkit")
    parts = [
        "# Commands",
        "Every command prints this help with `--help`. Results go to stdout, progress and messages to stderr. The exit code "
        "is 0 on success, 2 for an error that the user can correct, 130 after Ctrl-C, and 1 otherwise. With "
        "`GPTKIT_DEBUG=1` an error shows its traceback. `gptkit --install-completion` installs shell completion.",
    ]
    panel = ""
    for path, command, inside in _commands(group, context):
        title = str(getattr(command, "rich_help_panel", "") or "")
        if path.count(" ") == 1 and title != panel:
            panel = title
            parts.append(f"## {panel}")
        parts += _command(path, command, inside)
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, command and context of every command, those of groups after the group."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inside = typer.Context(command, info_name=name, parent=context)
        yield inside.command_path, command, inside
        if hasattr(command, "list_commands"):
            yield from _commands(command, inside)


def _command(path: str, command: Any, context: Any) -> Iterable[str]:
    parameters = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    options = [parameter for parameter in parameters if parameter.param_type_name == "option" and parameter.name != "help"]
    level = "###" if path.count(" ") == 1 else "####"
    yield f"{level} {path} {{ #{path.replace(' ', '-')} }}"
    if not hasattr(command, "list_commands"):
        words = [path, *(["[OPTIONS]"] if options else []), *(_argument(argument) for argument in arguments)]
        yield prose.code(" ".join(words))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield _paragraph(paragraph)
    for parameter in (*arguments, *options):
        yield _parameter(parameter)


def _paragraph(text: str) -> str:
    """Return a paragraph of a help text; the lines of an example are code."""
    if text.startswith(EXAMPLE):
        return f"{EXAMPLE}\n\n{prose.code(text.removeprefix(EXAMPLE).strip(), 'sh')}"
    return prose.inline(" ".join(text.split()))


def _argument(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper())
    if name.startswith("["):
        return name
    shown = name if argument.required else f"[{name}]"
    return f"{shown}…" if argument.nargs == -1 and not name.endswith("...") else shown


def _parameter(parameter: Any) -> str:
    """Return one argument or option as an entry of a definition list."""
    if parameter.param_type_name == "argument":
        names = f"`{_argument(parameter)}`"
    else:
        value = "" if parameter.is_flag else f" {parameter.metavar or _value(parameter)}"
        names = ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))
    text = prose.inline(parameter.help or "")
    facts = [fact for fact in (_choices(parameter), _default(parameter)) if fact]
    return f"{names}\n:   {' '.join([text, *facts]).strip()}"


def _annotation(parameter: Any) -> Any:
    return getattr(getattr(parameter, "type_descriptor", None), "annotation", None)


def _value(parameter: Any) -> str:
    annotation = _annotation(parameter)
    return {int: "N", float: "X", Path: "PATH"}.get(annotation, "TEXT" if not _enumerated(annotation) else "NAME")


def _enumerated(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def _choices(parameter: Any) -> str:
    annotation = _annotation(parameter)
    choices = [str(choice.value) for choice in annotation] if _enumerated(annotation) else []
    return f"One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""


def _default(parameter: Any) -> str:
    default = getattr(parameter.default, "value", parameter.default)
    if default is None or default in (False, "", ()) or callable(default) or "UNSET" in repr(default).upper():
        return ""
    if default is True:
        return "On by default." if not parameter.secondary_opts else f"Default: `{parameter.opts[0]}`."
    return f"Default: `{default}`."
