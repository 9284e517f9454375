"""`gptkit docs`: build or serve the documentation of the installed components."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gptkit.cli import console
from gptkit.cli.failures import Command, Commands
from gptkit.cli.options import Quiet
from gptkit.core.errors import GptkitError

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    help="Build or serve the documentation of what is installed, plugins included.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command(cls=Command)
def build(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory of the site.")] = Path("gptkit-docs"),
    quiet: Quiet = False,
) -> None:
    """Build the documentation as a site that opens in a browser without a server.

    An earlier site in the directory is replaced; files that gptkit did not write are never touched. Requires the extra
    docs.

    For example: gptkit docs build --out site
    """
    from gptkit.docs import building

    building.require_builder()
    building.require_replaceable(out)
    from gptkit.core.activity import working

    with working("building the documentation", quiet=quiet):
        page = building.build(out)
    console.out(str(page))


@app.command(cls=Command)
def serve(
    address: Annotated[
        str, typer.Option("--address", "-a", metavar="HOST:PORT", help="Address to listen on.")
    ] = "127.0.0.1:8000",
    browser: Annotated[bool, typer.Option("--open", help="Open the first page in the browser.")] = False,
) -> None:
    """Serve the documentation on this machine, and build it again when a page or component changes.

    Ctrl-C ends the server. Requires the extra docs.

    For example: gptkit docs serve --open
    """
    from gptkit.docs import building

    if not re.fullmatch(r"[^\s:]+:\d{1,5}", address):
        raise GptkitError(f"--address {address} is not an address", hint="Write HOST:PORT, for example 127.0.0.1:8000.")
    building.serve(address, open_in_browser=browser)
