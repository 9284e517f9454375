"""`gptkit serve`: serve runs with the OpenAI API. The log is written on stderr."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import Precision, Quiet, Samplers, Step, complete_runs
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.serving.app import Api

__all__ = ["serve"]

_REQUIRED = ("starlette", "uvicorn", "prometheus_client")
_EVERYWHERE = ("0.0.0.0", "::", "")


def serve(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run directories, as in runs/gpt.", autocompletion=complete_runs),
    ],
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Port; 0 for any free one.")
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="GPTKIT_API_KEY",
            help="Key that clients must send. Other users of this machine see options, but not the variable.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Name of the model in requests; by default that of the directory."),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="What computes the model: gptkit components engine.")
    ] = "native",
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, max=4096, metavar="N", help="Requests that run at the same time.")
    ] = 8,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=0, max=100_000, metavar="N", help="Requests that wait; more get status 429.")
    ] = 64,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "-n",
            min=1,
            metavar="N",
            help="Maximum number of new tokens per choice; the context length by default.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time in which a request must be answered.")
    ] = 600.0,
    grace: Annotated[
        float, typer.Option("--grace", min=0, metavar="SECONDS", help="Time for running answers at the end.")
    ] = 30.0,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            metavar="ORIGIN",
            help="Origin of web pages that may use the server, as in https://example.org. Repeatable.",
        ),
    ] = None,
    sampler: Samplers = None,
    step: Step = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Serve runs with the OpenAI API, until Ctrl-C.

    For example: gptkit serve runs/gpt --port 8000  # and then, in another terminal:
    curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "Once", "max_tokens": 20}'
    """
    missing = [module for module in _REQUIRED if importlib.util.find_spec(module) is None]
    if missing:
        raise GptkitError(f"gptkit serve requires {missing[0]}, which is not installed", hint="pip install 'gptkit[serve]'")
    _check_key(api_key)
    _let_threads_sleep()
    from gptkit.cli.precision import parsed
    from gptkit.cli.samplers import chain
    from gptkit.runs.engines import engine_spec
    from gptkit.serving.app import Api, application
    from gptkit.serving.limits import Limits
    from gptkit.serving.loading import load_model, model_names
    from gptkit.serving.metrics import Metrics
    from gptkit.serving.server import Server, bind, is_loopback

    names = model_names(directories, name or [])
    samplers, spec, metrics = chain(sampler) if sampler else None, engine_spec(engine), Metrics()
    listener = bind(host, port)
    models = {}
    for directory, each in zip(directories, names, strict=True):
        with working(f"loading {directory}", quiet=quiet):
            models[each] = load_model(
                directory,
                each,
                spec,
                metrics,
                max_batch=max_batch,
                max_queue=max_queue,
                sampler=samplers,
                step=step,
                precision=parsed(precision) if precision else None,
            )
    local = is_loopback(host)
    if not local and api_key is None:
        console.warn(f"everyone who reaches {host or 'this machine'} can use the server; set a key: GPTKIT_API_KEY=…")
    api = Api(
        models,
        Limits(max_tokens=max_tokens, timeout=timeout),
        metrics,
        api_key,
        hosts=frozenset({"localhost", "127.0.0.1", "::1", host.lower()}) if local and api_key is None else None,
        origins=tuple(origins or ()),
    )

    def ready() -> None:
        if not quiet:
            shown = host if host not in _EVERYWHERE else "127.0.0.1"
            address = f"[{shown}]" if ":" in shown else shown
            url = f"http://{address}:{listener.getsockname()[1]}/v1"
            console.note(f"serving {', '.join(names)} at {url} (Ctrl-C ends it)")

    _log_to_stderr()
    server = Server(application(api), grace=grace, end_answers=lambda: _end_answers(api), on_ready=ready)
    server.run(sockets=[listener])


def _check_key(key: str | None) -> None:
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        hint = "For example: GPTKIT_API_KEY=$(openssl rand -hex 24) gptkit serve RUN"
        raise GptkitError("the API key must be ASCII characters without spaces, at least one", hint=hint)


def _let_threads_sleep() -> None:
    """Let threads of OpenMP sleep while they wait; it reads these variables when torch is imported.

    By default they spin, and take the time of the event loop: with 8 clients on 2 cores, a third of the tokens per second.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def _end_answers(api: Api) -> None:
    from gptkit.serving.errors import UnavailableError

    for model in api.models.values():
        model.engine.fail_all(UnavailableError("the server is shutting down"))


def _log_to_stderr() -> None:
    """Write errors of the engine and of connections on stderr, with tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for logger in (logging.getLogger("gptkit.serving"), logging.getLogger("uvicorn.error")):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
