"""`gptkit chat`: a conversation in the terminal. Only the replies are printed on stdout."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.failures import report
from gptkit.cli.options import Overflow, Quiet, RunDirectory, Samplers, Seed, Step, Stop
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.runs.conversation import Conversation, Reply
    from gptkit.runs.run import Run

__all__ = ["chat"]

_MAX_TOKENS = {True: 1000, False: 200}
"""Default maximum number of tokens per reply, with and without a chat template."""

_COMMAND = re.compile(r"/([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_HELP = """\
/reset          start a new conversation with the same system message
/system TEXT    set the system message; without TEXT, show it
/save FILE      write the messages as JSON
/exit           end the conversation, like Ctrl-D
Ctrl-C stops a reply. A backslash at the end of a line continues the message on the next one."""


def chat(
    directory: RunDirectory,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="System message.", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "-n",
            min=1,
            metavar="N",
            help="Maximum number of tokens per reply; 1000, or 200 without a chat template.",
            show_default=False,
        ),
    ] = None,
    sampler: Samplers = None,
    seed: Seed = None,
    stop: Stop = None,
    overflow: Annotated[
        Overflow,
        typer.Option(
            "--overflow",
            help="When the conversation fills the context: slide discards its oldest messages, stop refuses further ones.",
        ),
    ] = Overflow.slide,
    step: Step = None,
    quiet: Quiet = False,
) -> None:
    """Chat with a model; the conversation ends at Ctrl-D.

    Messages are formatted by the model's chat template. A model without a template continues plain text. Each line of
    piped stdin is a message. Commands: /reset, /system, /save, /exit, /help.

    For example: gptkit chat runs/smollm2 --system "Be brief."
    """
    with working(f"loading {directory}", quiet=quiet):
        import_torch()
        from gptkit.cli.samplers import chain, described
        from gptkit.runs.run import load

        run = load(directory, step=step)
    has_template = run.tokenizer.chat_template is not None
    samplers = chain(sampler) if sampler else run.spec.sampler
    talk = run.conversation(
        system,
        max_new_tokens=max_tokens or _MAX_TOKENS[has_template],
        sampler=samplers,
        stop=stop or (),
        seed=seed,
        overflow=overflow.value,
    )
    talk.check()
    interactive = sys.stdin.isatty()
    if not quiet:
        _greet(run, described(samplers), interactive=interactive)
    _Chat(talk, quiet=quiet, interactive=interactive).run()


def _greet(run: Run, samplers: str, *, interactive: bool) -> None:
    if run.tokenizer.chat_template is None:
        console.warn(f"{run.spec.name} has no chat template: it was not trained for conversations, and continues plain text")
    if interactive:
        console.note(f"{run.spec.name}; sampler: {samplers}; /help lists the commands", style="dim")


class _Chat:
    """Conversation loop: read a line, then run a command or print a reply."""

    def __init__(self, talk: Conversation, *, quiet: bool, interactive: bool) -> None:
        self._talk, self._quiet, self._interactive = talk, quiet, interactive
        self._saved: set[Path] = set()
        self._n_discarded = 0

    def run(self) -> None:
        for line in _typed() if self._interactive else _piped():
            command = _COMMAND.fullmatch(line.strip())
            try:
                if command is None:
                    self._answer(line)
                elif self._execute(command[1].lower(), (command[2] or "").strip()):
                    return
            except GptkitError as error:
                if not self._interactive:
                    raise
                report(error)

    def _execute(self, name: str, text: str) -> bool:
        """Run a command; return whether the conversation ends."""
        if name in ("exit", "quit", "bye"):
            return True
        commands: dict[str, Callable[[str], None]] = {
            "reset": self._reset,
            "clear": self._reset,
            "system": self._system,
            "save": self._save,
            "help": lambda _: console.note(_HELP),
        }
        if name not in commands:
            raise GptkitError(f"unknown command /{name}", hint="Commands: /reset, /system TEXT, /save FILE, /exit, /help.")
        commands[name](text)
        return False

    def _reset(self, text: str) -> None:
        self._talk.reset()
        self._n_discarded = 0
        self._note("started a new conversation")

    def _system(self, text: str) -> None:
        if not text:
            self._note(f"system message: {self._talk.system}" if self._talk.system else "no system message")
            return
        previous, self._talk.system = self._talk.system, text
        try:
            self._talk.check()
        except GptkitError:
            self._talk.system = previous
            raise
        self._note("system message set")

    def _save(self, text: str) -> None:
        from gptkit.core.atomic import write_text

        if not text:
            raise GptkitError("/save needs a file", hint="As in: /save chat.json")
        path = Path(text).expanduser()
        if path.exists() and path.resolve() not in self._saved:
            raise GptkitError(f"{path} already exists", hint="Choose another name.")
        system = [] if self._talk.system is None else [{"role": "system", "content": self._talk.system}]
        write_text(path, json.dumps([*system, *self._talk.messages], indent=2, ensure_ascii=False) + "\n")
        self._saved.add(path.resolve())
        self._note(f"{console.plural(len(self._talk.messages), 'message')} saved in {path}")

    def _answer(self, message: str) -> None:
        reply = self._talk.stream(message)
        if self._talk.n_discarded > self._n_discarded:
            new, self._n_discarded = self._talk.n_discarded - self._n_discarded, self._talk.n_discarded
            self._note(f"the context is full: the oldest {console.plural(new, 'message')} discarded")
        if reply.n_unread and not self._quiet:
            console.warn(f"the context is full: the text begins with {reply.n_unread:,} tokens that are not read")
        try:
            with working("reading the conversation", quiet=self._quiet):
                first = next(reply, "")
            console.write(first)
            for piece in reply:
                console.write(piece)
        except KeyboardInterrupt:
            # Raised between two tokens; during a forward pass, the reply handles the interrupt itself.
            reply.close()
        finally:
            console.write("\n")
        self._ended(reply)

    def _ended(self, reply: Reply) -> None:
        if reply.finish == "interrupted":
            if not self._interactive:
                raise KeyboardInterrupt
            self._note("stopped")
        elif reply.finish == "length" and self._talk.is_chat:
            self._note("the reply reached its maximum length (--max-tokens) or the end of the context")

    def _note(self, text: str) -> None:
        if not self._quiet:
            console.note(text, style="dim")


def _typed() -> Iterator[str]:
    """Yield messages typed in a terminal, with line editing and history."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() uses it once it is imported)
    while True:
        try:
            lines = [_line("> ")]
            while lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1]
                lines.append(_line("  "))
        except EOFError:
            console.write("\n")
            return
        except KeyboardInterrupt:
            console.write("\n")
            console.note("Ctrl-D or /exit ends the conversation", style="dim")
            continue
        message = "\n".join(lines)
        if message.strip():
            yield message


def _line(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # stdout is redirected and receives the replies only.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()


def _piped() -> Iterator[str]:
    """Yield messages from a file or a pipe, one per line; skip empty lines."""
    from gptkit.text.decoding import decode_utf8

    for line in decode_utf8(sys.stdin.buffer, "stdin"):
        if line.strip():
            yield line.rstrip("\n")
