"""Error handling of the command line: a message and an exit code instead of a traceback.

::

    2     an error that the user can correct: a `GptkitError`, an unusable file, or a wrong command line
    130   Ctrl-C
    143   SIGTERM, outside of a training and a server, which end in order
    1     any other exception (a bug in gptkit or a plugin), or a closed pipe

With GPTKIT_DEBUG=1 exceptions propagate with their tracebacks.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from gptkit.cli.console import label, note, plural, warn
from gptkit.cli.environment import is_on
from gptkit.cli.help_text import for_terminal
from gptkit.cli.other_names import VERBS
from gptkit.cli.path_words import expanded
from gptkit.core.commands import quoted
from gptkit.core.errors import NO_ROOM, GptkitError, Problem, RegistryError, SpecError
from gptkit.core.memory import is_exhaustion
from gptkit.core.suggestions import closest

__all__ = ["Command", "Commands", "debugging", "end_on_sigterm", "follows", "report"]

USER, CRASH, INTERRUPTED, TERMINATED = 2, 1, 130, 143


_OS_HINTS: dict[type[OSError], str] = {
    FileNotFoundError: "check the name; relative paths count from the current directory",
    IsADirectoryError: "pass a file",
    NotADirectoryError: "a part of the path is a file; choose another path",
    PermissionError: "change the file's permissions, or choose another file",
}
"""Remedies for errors of the system in the user's files."""

_PATH = re.compile(r"^\W*(?:A|B|DIR(?:ECTORY)?|FILE|PATH|RUN2?|SOURCE)\b(?!=)")
"""Names of values that are paths."""


_OF_PYTHON = re.compile(r"(--(\w+)) \(\2=True\)")
"""An option with its name in Python, which hints of functions that commands call have in addition."""


def debugging() -> bool:
    """Return whether tracebacks are requested."""
    return is_on("GPTKIT_DEBUG")


def end_on_sigterm() -> None:
    """End with a message after SIGTERM, and remove unfinished files as after Ctrl-C; a second one ends at once."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    note("terminated by SIGTERM")
    raise SystemExit(TERMINATED)


def follows() -> bool:
    """Return whether this is another than the main one of several processes, which alone prints what all of them would."""
    return os.environ.get("RANK", "0") != "0"


def _hide_types(params: Any) -> Any:
    """Omit the types of flags and arguments from the help: a flag takes no value, and an argument's name describes it."""
    for param in params:
        if getattr(param, "is_flag", False) or param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None
    return params


_FILE_NAME = re.compile(r"[\w./\\~:-]*\w\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)
"""A word that looks like the name of a file."""


def _with_value(argument: str, following: str) -> str:
    """Give ``--trace`` the value ``-``, the terminal, unless the name of a file follows: click's options need a value."""
    return "--trace=-" if argument == "--trace" and not _FILE_NAME.fullmatch(following) else argument


class Command(TyperCommand):
    """A single command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        shown = copy.copy(self)
        shown.help = for_terminal(self.help or "")
        super(Command, shown).format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> Any:
        return _hide_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:
            self._refuse_empty_paths(ctx, args)
        try:
            rest = super().parse_args(ctx, [_with_value(arg, following) for arg, following in pairwise([*args, ""])])
        except Exception as error:
            unknown = getattr(error, "option_name", None)
            if type(error).__name__ == "NoSuchOption" and isinstance(unknown, str):
                self._suggest(ctx, args, unknown)
            raise
        for param in self.get_params(ctx):
            if _PATH.search(param.metavar or "") and param.name in ctx.params:
                ctx.params[param.name] = expanded(ctx.params[param.name])
        return rest

    def _suggest(self, ctx: Any, args: list[str], unknown: str) -> None:
        """Report an option that has another name in gptkit, or is an argument here, with what to write."""
        from gptkit.cli.other_names import is_input, names_result, own_options

        arguments = [param.metavar for param in self.get_params(ctx) if param.param_type_name == "argument"]
        parameters = [param.name for param in self.get_params(ctx)]
        positional = f"No such option: {unknown}. Write the path without it: {ctx.command_path} {' '.join(arguments)}"
        if names_result(unknown, ctx.info_name):
            ctx.fail(positional)
        word = next((arg for arg in args if arg.startswith(unknown) and Path(arg).exists()), None)
        if word is not None:
            ctx.fail(f"No such option: {unknown}. For the file or directory, write: {quoted(Path(word))}")
        if arguments and _PATH.search(arguments[0]) and is_input(unknown, parameters):
            ctx.fail(positional)
        known = {option for param in self.get_params(ctx) for option in param.opts}
        own = own_options(args, unknown, parameters, known)
        if own is not None:
            ctx.fail(f"No such option: {unknown}. Write: {own}")

    def _refuse_empty_paths(self, ctx: Any, args: list[str]) -> None:
        """Report an empty path, usually that of an unset variable in a script: it would select the current directory."""
        values, _, _ = self.make_parser(ctx).parse_args(list(args))
        for param in self.get_params(ctx):
            value = values.get(param.name)
            if _PATH.search(param.metavar or "") and "" in (value if isinstance(value, (list, tuple)) else (value,)):
                ctx.fail(f"{param.metavar} is empty; write a path (the current directory is .)")


class Commands(TyperGroup):
    """Command group that converts exceptions to messages and exit codes."""

    def get_params(self, ctx: Any) -> Any:
        params = _hide_types(super().get_params(ctx))
        for param in params:
            if param.name in ("install_completion", "show_completion"):
                # The epilog of the help mentions them.
                param.hidden = True
        return params

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            meant = self._meant(ctx, args[0])
            if meant is not None:
                ctx.fail(f"No such command '{args[0]}'. {meant}")
        return super().resolve_command(ctx, args)

    def _meant(self, ctx: Any, word: str) -> str | None:
        """Return what to write for an unknown command; None if it may be a misspelled one, which typer names."""
        commands, verb = self.list_commands(ctx), VERBS.get(word.lower(), "")
        if ctx.parent is None:
            if not verb and Path(word).suffix in (".yaml", ".yml", ".json", ".toml") and Path(word).is_file():
                verb = f"train {quoted(Path(word))}"
            return f"Did you mean: gptkit {verb}" if verb else None
        if verb.split(" ")[0] in commands:
            return f"Did you mean: {ctx.command_path} {verb.split(' ')[0]}"
        if closest(word, commands) is not None:
            return None
        return f"Commands: {', '.join(f'{ctx.command_path} {name}' for name in commands)}"

    def make_context(self, *args: Any, **options: Any) -> Any:
        # --help and --version print here.
        with _exit_codes():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _messages(), _exit_codes():
            result = super().invoke(ctx)
            # Flushing here raises BrokenPipeError where it can be handled, not at interpreter exit.
            sys.stdout.flush()
            return result


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # The reader (such as head) has closed the pipe.
        _discard_stdout()
        raise typer.Exit(CRASH) from None
    except KeyboardInterrupt:
        if debugging():
            raise
        note("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except GptkitError as error:
        if debugging():
            raise
        if not (error.common and follows()):
            report(error)
        raise typer.Exit(USER) from None
    except Exception as error:
        # typer handles usage errors, exits and aborts.
        if debugging() or type(error).__module__.partition(".")[0] in ("typer", "click"):
            raise
        if isinstance(error, OSError) and error.strerror:
            # Errors in writing gptkit's files name the file (`gptkit.core.atomic`); errors in writing stdout do not.
            name = "stdout cannot be written" if error.filename is None and error.errno in NO_ROOM else error.filename
            label("error", "bold red", ": ".join(str(part) for part in (name, error.strerror) if part))
            if type(error) in _OS_HINTS:
                label("hint", "bold cyan", _OS_HINTS[type(error)])
            _discard_stdout()
            raise typer.Exit(USER) from None
        if is_exhaustion(error):
            lines = str(error).strip().splitlines()
            label("error", "bold red", "out of memory", f": {lines[0]}" if lines else "")
            label("hint", "bold cyan", "use a smaller model, context length or batch, or a machine with more memory")
            raise typer.Exit(USER) from None
        from gptkit.cli.crash import report_crash

        raise typer.Exit(USER if report_crash(error) else CRASH) from None


def _discard_stdout() -> None:
    """Discard buffered output if stdout cannot be written; the interpreter would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: GptkitError) -> None:
    """Print an error on stderr: for a spec one line per problem and their number, else the message; then the hint."""
    if isinstance(error, SpecError):
        if len(error.problems) == 1 and error.problems[0].source is None:
            label("error", "bold red", str(error.problems[0]))
        else:
            _report_problems(error)
    else:
        label("error", "bold red", error.message)
    hint = error.hint or (_preset_hint(error.problems) if isinstance(error, SpecError) else None)
    if hint:
        label("hint", "bold cyan", _OF_PYTHON.sub(r"\1", hint))
    if isinstance(error, SpecError | RegistryError):
        _report_broken_installation()


def _preset_hint(problems: Sequence[Problem]) -> str | None:
    """Return where to change a value that a preset has, whose file belongs to an installation; None without such a value."""
    from gptkit.presets.catalog import shipped

    located = [problem for problem in problems if problem.line is not None and problem.source is not None]
    if not located:
        return None
    names = {str(path): name for name, path in shipped().items()}
    for problem in located:
        name = names.get(str(problem.source))
        if name is not None:
            change = f"--set {problem.dotted}=VALUE" if problem.path else "--set"
            return f"{name} is a preset, which is not edited: change the value with {change}, or in a spec that extends it."
    return None


def _report_problems(error: SpecError) -> None:
    for problem in error.problems:
        note(str(problem))
    # An option is part of its message already.
    given = (problem.source for problem in error.problems if problem.source)
    sources = sorted({source.split()[0] if source.startswith("-") else source for source in given})
    location = f" in {' and '.join(sources)}" if 0 < len(sources) < 4 else ""
    label("error", "bold red", plural(len(error.problems), "error"), location)


def _report_broken_installation() -> None:
    """Report built-in components that could not be loaded, which may have caused the reported error."""
    from gptkit.core.registry import default_registry

    try:
        plugins = default_registry().plugins()
    except GptkitError:  # the reported error: the registry cannot be loaded at all
        return
    for plugin in plugins:
        if plugin.built_in and plugin.status == "broken":
            label("error", "bold red", f"{plugin.module}, which is part of gptkit, could not be loaded: {plugin.error}")
            label("hint", "bold cyan", "see gptkit plugins --verbose; reinstalling gptkit may help")


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Print gptkit's warnings (a renamed field, a failed tracker) on one line each."""
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
        if not any(isinstance(each, _Lines) for each in logger.handlers):  # a command of a group is within the group's
            logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())
