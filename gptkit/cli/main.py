"""Entry point of the command line: all commands, grouped for `--help`, each imported when it is needed."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from typing import Annotated, Any

import typer

import gptkit
from gptkit.cli import console
from gptkit.cli.environment import ignore_unusable_width, misspelled
from gptkit.cli.failures import Command, Commands, debugging, end_on_sigterm
from gptkit.cli.streams import open_closed_streams
from gptkit.core.diagnostics import Diagnostics

__all__ = ["app", "main"]

_PANELS = {
    "Start": {"demo": "demo:demo", "new": "new:new"},
    "Specs": {"check": "check:check", "show": "show:show", "diff": "diff:diff"},
    "Data": {"data": "data:app"},
    "Models": {
        "train": "train:train",
        "bench": "bench:bench",
        "plan": "plan:plan",
        "runs": "runs:runs",
        "compare": "compare:compare",
        "search": "search:search",
        "scaling": "scaling:scaling",
        "generate": "generate:generate",
        "chat": "chat:chat",
        "play": "play:play",
        "evaluate": "evaluate:evaluate",
        "serve": "serve:serve",
        "inspect": "inspect:inspect",
        "quantize": "quantize:quantize",
    },
    "External models": {
        "import": "import_:import_model",
        "export": "export:export",
        "eject": "eject:eject",
        "drift": "drift:drift",
    },
    "Components": {
        "components": "components:components",
        "plugins": "plugins:plugins",
        "schema": "schema:schema",
        "plugin": "plugin:app",
    },
    "Documentation": {"docs": "docs:app"},
}
"""The commands by panel, each with its function, or with its Typer of subcommands, as ``module:name``."""


class LazyCommands(Commands):
    """The group of all commands, each imported on lookup: importing all takes longer than most commands run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for commands in _PANELS.values() for name in commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for panel, commands in _PANELS.items():
            if cmd_name in commands and cmd_name not in self.commands:
                self.commands[cmd_name] = _command(cmd_name, commands[cmd_name], panel)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            for name in self.list_commands(ctx):
                self.get_command(ctx, name)  # Typer suggests those that are loaded
        return super().resolve_command(ctx, args)


def _command(name: str, location: str, panel: str) -> Any:
    module, _, attribute = location.partition(":")
    target = getattr(importlib.import_module(f"gptkit.cli.{module}"), attribute)
    group = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    if isinstance(target, typer.Typer):
        group.add_typer(target, name=name, rich_help_panel=panel)
    else:
        group.command(name, cls=Command, rich_help_panel=panel)(target)
    return typer.main.get_group(group).commands[name]


app = typer.Typer(
    name="gptkit",
    cls=LazyCommands,
    help="Compose, train and run GPT language models from spec files.",
    epilog="Start with: gptkit demo. Enable shell completion with: gptkit --install-completion.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gptkit {gptkit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    open_closed_streams()
    ignore_unusable_width()
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot encode are replaced by question marks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.stderr = Diagnostics(sys.stderr)
    if debugging():
        import faulthandler

        faulthandler.enable()
    end_on_sigterm()
    for name, meant in misspelled().items():
        console.warn(f"environment variable {name} is not used; did you mean {meant}?")
    # The interpreter's last collection would examine every object of a process that ends.
    atexit.register(gc.freeze)
    app()
