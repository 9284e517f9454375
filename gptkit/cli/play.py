"""`gptkit play`: a local page to try a model. Only the address is printed on stdout."""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Precision, Quiet, RunDirectory, Step
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    import socket

__all__ = ["play"]

_REQUIRED = ("starlette", "uvicorn", "h11")
_PORT = 8765
_AT_ONCE = 4
"""Number of texts that are generated at the same time; others wait."""


def play(
    directory: RunDirectory,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; by default this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Port to listen on; 0 for any free one.")
    ] = _PORT,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    step: Step = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Try a model on a local page: change the prompt and the samplers, and see what might have been drawn.

    Tokens stream in with their probabilities. A click on a token shows what each sampler left, and a click on another
    candidate continues the text from there. Ctrl-C ends the server.

    For example: gptkit play runs/gpt
    """
    missing = [module for module in _REQUIRED if importlib.util.find_spec(module) is None]
    if missing:
        raise GptkitError(f"gptkit play requires {missing[0]}, which is not installed", hint="pip install 'gptkit[serve]'")
    from gptkit.play.app import application
    from gptkit.serving.server import Server, bind, is_loopback

    listener = bind(host, port)  # a port in use is reported before the model is loaded
    with working(f"loading {directory}", quiet=quiet):
        from gptkit.cli.precision import parsed
        from gptkit.runs.engines import engine_context, engine_spec
        from gptkit.runs.run import load
        from gptkit.serving.engine import AsyncEngine
        from gptkit.serving.errors import UnavailableError

        run = load(directory, step=step, precision=parsed(precision) if precision else None)
        engine = AsyncEngine(engine_spec("native").build(engine_context(run, _AT_ONCE)), max_queue=_AT_ONCE, name="play")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if not is_loopback(host):
        console.warn(f"everyone who reaches {host or 'this machine'} can use this page; it has no password")
    url = _url(host, listener)

    def ready() -> None:
        console.out(url)
        sys.stdout.flush()
        if not quiet:
            console.note("Ctrl-C ends the server", style="dim")
        if browser:
            typer.launch(url)

    def end_answers() -> None:
        engine.fail_all(UnavailableError("the server has ended"))

    app = application(run, engine, frozenset({host.lower()}))
    Server(app, grace=0.0, end_answers=end_answers, on_ready=ready).run(sockets=[listener])


def _url(host: str, listener: socket.socket) -> str:
    """The address to open: that of this machine, where the server listens on all of its addresses."""
    port = listener.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"
