"""Entry point of the command line: registers all commands, grouped for `--help`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import gptkit
from gptkit.cli import (
    chat,
    check,
    components,
    demo,
    diff,
    drift,
    evaluate,
    export,
    generate,
    import_,
    new,
    plugin,
    plugins,
    schema,
    show,
    train,
)
from gptkit.cli.failures import Command, Commands, debugging

__all__ = ["app", "main"]

app = typer.Typer(
    name="gptkit",
    cls=Commands,
    help="Compose, train and run GPT language models from spec files.",
    epilog="Start with: gptkit demo. Enable shell completion with: gptkit --install-completion.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PANELS = {
    "Start": (demo.demo, new.new),
    "Specs": (check.check, show.show, diff.diff),
    "Models": (train.train, generate.generate, chat.chat, evaluate.evaluate),
    "External models": (import_.import_model, export.export, drift.drift),
    "Components": (components.components, plugins.plugins, schema.schema),
}
for _panel, _functions in _PANELS.items():
    for _function in _functions:
        # `import` is a keyword, so the function has another name.
        name = "import" if _function is import_.import_model else None
        app.command(name, cls=Command, rich_help_panel=_panel)(_function)
app.add_typer(plugin.app, name="plugin", rich_help_panel="Components")


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
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot encode are replaced by question marks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if debugging():
        import faulthandler

        faulthandler.enable()
    app()
