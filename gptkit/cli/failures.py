"""How what goes wrong reaches the user: a message and an exit code, never a traceback.

::

    2     something the user can put right: a `GptkitError`, a file that cannot be used, or a wrong command line
    130   Ctrl-C
    1     anything else, which is our mistake or a plugin's, or a reader that closed the pipe

With GPTKIT_DEBUG=1 exceptions come through with their tracebacks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

import typer
from typer.core import TyperGroup

from gptkit.cli.console import label, note, plural, warn
from gptkit.core.errors import GptkitError, RegistryError, SpecError
from gptkit.core.memory import is_exhaustion

if TYPE_CHECKING:
    import traceback

__all__ = ["Commands", "debugging", "report"]

USER, CRASH, INTERRUPTED = 2, 1, 130


def debugging() -> bool:
    """Whether tracebacks were asked for."""
    return os.environ.get("GPTKIT_DEBUG", "") not in ("", "0")


class Commands(TyperGroup):
    """The group of all commands, which turns exceptions into messages and exit codes."""

    def get_params(self, ctx: Any) -> Any:
        params: Any = super().get_params(ctx)
        for param in params:
            if param.name in ("install_completion", "show_completion"):
                # The help's last line names the one of them that is needed.
                param.hidden = True
        return params

    def invoke(self, ctx: Any) -> Any:
        with _messages(), _exit_codes():
            result = super().invoke(ctx)
            # Here and not at the interpreter's end, where a closed pipe could only be complained about.
            sys.stdout.flush()
            return result


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output (head, say) has seen enough. What is still buffered must go somewhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CRASH) from None
    except KeyboardInterrupt:
        if debugging():
            raise
        note("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except GptkitError as error:
        if debugging():
            raise
        report(error)
        raise typer.Exit(USER) from None
    except Exception as error:
        # Usage errors, exits and aborts are typer's business.
        if debugging() or type(error).__module__.partition(".")[0] in ("typer", "click"):
            raise
        if isinstance(error, OSError) and error.strerror:
            label("error", "bold red", ": ".join(str(part) for part in (error.filename, error.strerror) if part))
            raise typer.Exit(USER) from None
        if is_exhaustion(error):
            lines = str(error).strip().splitlines()
            label("error", "bold red", "the memory does not suffice", f": {lines[0]}" if lines else "")
            label("hint", "bold cyan", "use a smaller model, context length or batch, or a machine with more memory")
            raise typer.Exit(USER) from None
        _report_crash(error)
        raise typer.Exit(CRASH) from None


def report(error: GptkitError) -> None:
    """Print an error on stderr: for a spec a line for each mistake and how many there are, else the message; the hint."""
    if isinstance(error, SpecError):
        for problem in error.problems:
            note(str(problem))
        sources = sorted({problem.source for problem in error.problems if problem.source})
        place = f" in {' and '.join(sources)}" if 0 < len(sources) < 4 else ""
        label("error", "bold red", plural(len(error.problems), "mistake"), place)
    else:
        label("error", "bold red", error.message)
    if error.hint:
        label("hint", "bold cyan", error.hint)
    if isinstance(error, SpecError | RegistryError):
        _report_broken_installation()


def _report_broken_installation() -> None:
    """Say so where gptkit's own components could not be loaded: what was reported then follows from that."""
    from gptkit.core.registry import default_registry

    for plugin in default_registry().plugins():
        if plugin.built_in and plugin.error:
            label("error", "bold red", f"{plugin.module}, a part of gptkit itself, is broken: {plugin.error}")
            label("hint", "bold cyan", "see gptkit plugins --verbose; installing gptkit anew may help")


def _report_crash(error: Exception) -> None:
    import traceback

    last = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    culprit = _failing_plugin(error)
    if culprit is not None:
        plugin, frame = culprit
        what = " ".join(last.split())
        label("error", "bold red", f"the plugin {plugin} failed: {what} ({frame.filename}:{frame.lineno})")
        label("hint", "bold cyan", "see the whole traceback with GPTKIT_DEBUG=1, and tell the plugin's authors")
        return
    label("error", "bold red", "this should not have happened: ", last)
    if frames:
        note(f"  at {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}")
    hint = "please report it, with what `gptkit --version` says and the whole traceback: run it again with GPTKIT_DEBUG=1"
    label("hint", "bold cyan", hint)


def _failing_plugin(error: Exception) -> tuple[str, traceback.FrameSummary] | None:
    """The plugin that an exception comes from, as ``NAME==VERSION``, and the last of its lines that ran."""
    import traceback

    from gptkit.core.registry import default_registry

    packages = {
        plugin.module.partition(":")[0].partition(".")[0]: plugin.provenance
        for plugin in default_registry().plugins()
        if not plugin.built_in
    }
    found = None
    summaries = traceback.extract_tb(error.__traceback__)
    for (frame, _), summary in zip(traceback.walk_tb(error.__traceback__), summaries, strict=True):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in packages:
            found = packages[package], summary
    return found


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Show gptkit's own warnings (a renamed field, a failed tracker) as one line each."""
    logger, handler = logging.getLogger("gptkit"), _Lines(logging.WARNING)
    default = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, DeprecationWarning) and f"{os.sep}gptkit{os.sep}" in filename:
            warn(str(message))
        else:
            default(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=DeprecationWarning, module=r"gptkit(\.|$)")
        warnings.showwarning = show
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())
