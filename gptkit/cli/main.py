"""The entry point: all commands, in the order in which a newcomer meets them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import gptkit
from gptkit.cli import (
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
from gptkit.cli.failures import Commands, debugging

__all__ = ["app", "main"]

app = typer.Typer(
    name="gptkit",
    cls=Commands,
    help="Compose, train and run GPT language models from spec files.",
    epilog="Start with: gptkit demo. To complete names with the tab key: gptkit --install-completion.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PANELS = {
    "Start": (demo.demo, new.new),
    "Specs": (check.check, show.show, diff.diff),
    "Models": (train.train, generate.generate, evaluate.evaluate),
    "Other formats": (import_.import_model, export.export, drift.drift),
    "What is installed": (components.components, plugins.plugins, schema.schema),
}
for _panel, _functions in _PANELS.items():
    for _function in _functions:
        # The one name that a function cannot have.
        app.command("import" if _function is import_.import_model else None, rich_help_panel=_panel)(_function)
app.add_typer(plugin.app, name="plugin", rich_help_panel="What is installed")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gptkit {gptkit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not an error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if debugging():
        import faulthandler

        faulthandler.enable()
    app()
