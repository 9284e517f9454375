"""`gptkit chat`: a conversation in the terminal. Only the replies are printed on stdout."""

from __future__ import annotations

import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.failures import report
from gptkit.cli.messages import piped, read_messages, typed
from gptkit.cli.options import (
    Compile,
    Engine,
    Overflow,
    Precision,
    Quiet,
    RunDirectory,
    Samplers,
    Seed,
    Speculate,
    Step,
    Stop,
)
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
/reset            start again; the system message stays
/undo             remove the last message and its reply
/retry            another reply to the last message
/system TEXT      set the system message; without a text, show it
/sampler CHAIN    set the samplers, as in /sampler temperature=0.8 top-k=40; without a chain, show them
/tokens N         maximum number of tokens of a reply
/stats on|off     show tokens, speed and context after every reply; without a word, those of the last reply
/history          show the conversation
/save FILE        write the messages as JSON
/load FILE        replace the conversation by messages that /save wrote
/exit             end, as Ctrl-D does
Ctrl-C stops a reply. A message over several lines: end a line with a backslash, or begin and end it with \"\"\"."""


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
    speculate: Speculate = None,
    step: Step = None,
    precision: Precision = None,
    compile: Compile = False,
    engine: Engine = None,
    quiet: Quiet = False,
) -> None:
    """Chat with a model; the conversation ends at Ctrl-D.

    Messages are formatted by the model's chat template. A model without a template continues plain text. Each line of
    piped stdin is a message. Commands: /reset, /system, /save, /exit, /help.

    For example: gptkit chat runs/smollm2 --system "Be brief."
    """
    with working(f"loading {directory}", quiet=quiet):
        import_torch()
        from gptkit.cli.precision import parsed
        from gptkit.cli.samplers import chain, described, drafter
        from gptkit.runs.engines import engine_context, engine_spec, engine_with
        from gptkit.runs.run import load

        proposing = None if speculate is None else drafter(speculate)
        asked: dict[str, Any] = {"precision": precision is not None, "drafter": proposing, "compile": compile}
        chosen = None if engine is None else engine_with(engine_spec(engine), **asked)
        run = load(directory, step=step, precision=parsed(precision) if precision else None)
    has_template = run.tokenizer.chat_template is not None
    samplers = chain(sampler) if sampler else run.spec.sampler
    opened = None
    with ExitStack() as stack:
        if chosen is not None:
            with working(f"loading the engine {chosen.name}", quiet=quiet):
                opened = chosen.build(engine_context(run, 1))
            stack.callback(opened.close)
        talk = run.conversation(
            system,
            max_new_tokens=max_tokens or _MAX_TOKENS[has_template],
            sampler=samplers,
            stop=stop or (),
            seed=seed,
            overflow=overflow.value,
            drafter=proposing if opened is None else None,
            compile=compile and opened is None,
            engine=opened,
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
        self._reply: Reply | None = None
        self._stats = False
        self._commands: dict[str, Callable[[str], None]] = {
            "reset": self._reset,
            "clear": self._reset,
            "undo": self._undo,
            "retry": self._retry,
            "regenerate": self._retry,
            "system": self._system,
            "sampler": self._sampler,
            "tokens": self._tokens,
            "stats": self._show_stats,
            "history": self._history,
            "save": self._save,
            "load": self._load,
            "help": lambda _: console.note(_HELP),
        }

    def run(self) -> None:
        for line in typed() if self._interactive else piped():
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
        if name not in self._commands:
            hint = f"Commands: {', '.join(f'/{each}' for each in self._commands)}, /exit."
            raise GptkitError(f"unknown command /{name}", hint=hint)
        self._commands[name](text)
        return False

    def _reset(self, text: str) -> None:
        self._talk.reset()
        self._n_discarded = 0
        self._note("started a new conversation")

    def _undo(self, text: str) -> None:
        message = self._talk.undo()
        if message is None:
            raise GptkitError("the conversation is empty", hint="Write a message first.")
        self._n_discarded = self._talk.n_discarded
        self._note(f"removed: {_shortened(message)}")

    def _retry(self, text: str) -> None:
        self._stream(self._talk.regenerate())

    def _sampler(self, text: str) -> None:
        from gptkit.cli.samplers import chain, described

        if text:
            try:
                parts = shlex.split(text)
            except ValueError as error:
                raise GptkitError(f"/sampler {text}: {error}", hint="As in: /sampler temperature=0.8 top-k=40") from None
            self._talk.sampler = chain(parts)
        self._note(f"sampler: {described(self._talk.sampler)}")

    def _tokens(self, text: str) -> None:
        if text and not (text.isdecimal() and int(text) > 0):
            raise GptkitError(f"/tokens {text}: not a number of tokens", hint="As in: /tokens 500")
        if text:
            self._talk.max_new_tokens = int(text)
        self._note(f"at most {console.plural(self._talk.max_new_tokens, 'token')} in a reply")

    def _show_stats(self, text: str) -> None:
        if text not in ("", "on", "off"):
            raise GptkitError(f"/stats {text}: not a setting", hint="Use /stats, /stats on or /stats off.")
        if text:
            self._stats = text == "on"
            self._note(f"numbers after every reply: {text}")
        elif self._reply is None:
            self._note("no reply yet")
        else:
            self._note(self._numbers(self._reply))

    def _numbers(self, reply: Reply) -> str:
        talk, used = self._talk, self._talk.n_context / self._talk.context_length
        parts = [console.plural(reply.n_tokens, "token"), f"first after {reply.prefill_seconds:.2f} s"]
        if reply.decode_rate:
            parts.append(f"{reply.decode_rate:,.0f} tokens/s")
        if reply.n_drafted:
            parts.append(f"{reply.n_accepted:,} of {reply.n_drafted:,} drafted tokens accepted")
        return ", ".join([*parts, f"context {talk.n_context:,} of {talk.context_length:,} tokens ({used:.0%})"])

    def _history(self, text: str) -> None:
        if not self._talk.messages:
            self._note("no messages yet")
        for message in self._talk.messages:
            console.note(f"{message['role']}: {console.printable(message['content'])}")

    def _load(self, text: str) -> None:
        if not text:
            raise GptkitError("/load needs a file", hint="As in: /load chat.json")
        system, messages = read_messages(Path(text).expanduser())
        previous = self._talk.system, self._talk.messages, self._talk.n_discarded
        self._talk.reset()
        self._talk.system, self._talk.messages = system, messages
        try:
            self._talk.check()
        except GptkitError:
            self._talk.system, self._talk.messages, self._talk.n_discarded = previous
            raise
        self._n_discarded = 0
        self._note(f"{console.plural(len(messages), 'message')} loaded from {text}")

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
        self._stream(self._talk.stream(message))

    def _stream(self, reply: Reply) -> None:
        self._reply = reply
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
            self._note("the reply reached its maximum length (/tokens N changes it) or the end of the context")
        if self._stats:
            self._note(self._numbers(reply))

    def _note(self, text: str) -> None:
        if not self._quiet:
            console.note(text, style="dim")


def _shortened(text: str) -> str:
    return textwrap.shorten(console.printable(text), 60, placeholder=" …")
