"""`gptkit chat`, with messages from a pipe and from a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import gptkit
from tests.support.chat_run import make_chat_run
from tests.support.command_line import Call

pytest.importorskip("jinja2")
SHORT = ("-n", "8", "--sampler", "greedy")


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_run(tmp_path_factory.mktemp("chat") / "run")


def test_piped_lines_are_turns_and_only_replies_go_to_stdout(
    call: Call, chat_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["hello there", "", "hello you", "/save chat.json", "/reset", "hello there", "/exit", "never"]
    result = call("chat", chat_run, *SHORT, "--system", "hello", input="\n".join(lines))
    talk = gptkit.load(chat_run).conversation("hello", max_new_tokens=8, sampler=["greedy"])
    first, second = talk.say("hello there"), talk.say("hello you")
    assert result.stdout == f"{first}\n{second}\n{first}\n"
    saved = json.loads(Path("chat.json").read_text())
    assert [message["role"] for message in saved] == ["system", "user", "assistant", "user", "assistant"]
    assert saved[-1]["content"] == second
    assert gptkit.load(chat_run).chat(saved[:-1], max_new_tokens=8, sampler=["greedy"]) == second


def test_a_quiet_chat_prints_replies_only(call: Call, chat_run: Path) -> None:
    assert call("chat", chat_run, *SHORT, "-q", input="hello\n/system hello\nhello\n").stderr == ""


def test_a_model_without_a_template_continues_with_a_warning(call: Call, run: Path) -> None:
    result = call("chat", run, *SHORT, input="the cat\n")
    assert "mini has no chat template" in result.stderr
    assert "maximum length" not in result.stderr
    assert result.stdout == gptkit.load(run).generate("the cat", max_new_tokens=8, sampler=["greedy"]) + "\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/savee x", "unknown command /savee"),
        ("/save", "/save needs a file"),
        ("/save taken.json", "already exists"),
        ("/undo", "the conversation is empty"),
        ("/retry", "no reply yet"),
        ("/sampler top-kk", "unknown sampler 'top-kk'"),
        ("/sampler 'a", "No closing quotation"),
        ("/tokens many", "not a number of tokens"),
        ("/stats maybe", "not a setting"),
        ("/load", "/load needs a file"),
    ],
)
def test_wrong_commands_from_a_pipe_are_errors(
    call: Call, chat_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.json").write_text("mine")
    assert message in call("chat", chat_run, *SHORT, input=f"{line}\n", code=2).stderr
    assert Path("taken.json").read_text() == "mine"


def test_undo_and_retry_change_the_last_reply(
    call: Call, chat_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["hello there", "hello you", "/undo", "/retry", "/save chat.json"]
    result = call("chat", chat_run, "-n", "8", "--seed", "3", input="\n".join(lines))
    talk = gptkit.load(chat_run).conversation(max_new_tokens=8, seed=3)
    replies = [talk.say("hello there"), talk.say("hello you")]
    assert talk.undo() == "hello you"
    replies.append("".join(talk.regenerate()))
    assert result.stdout == "".join(f"{reply}\n" for reply in replies)
    assert replies[2] != replies[0]
    assert "removed: hello you" in result.stderr
    saved = json.loads(Path("chat.json").read_text())
    assert [message["content"] for message in saved] == ["hello there", replies[2]]


def test_samplers_and_length_change_between_replies(call: Call, chat_run: Path) -> None:
    lines = ["hello", "/reset", "/sampler greedy", "/tokens 4", "hello", "/sampler", "/tokens"]
    result = call("chat", chat_run, "-n", "8", "--seed", "3", input="\n".join(lines))
    run = gptkit.load(chat_run)
    assert result.stdout.endswith(f"{run.chat('hello', max_new_tokens=4, sampler=['greedy'])}\n")
    assert result.stderr.count("sampler: greedy") == 2
    assert "at most 4 tokens" in result.stderr


def test_stats_and_history(call: Call, chat_run: Path) -> None:
    result = call("chat", chat_run, *SHORT, input="/stats\nhello\n/stats\n/stats on\nhello\n/history\n")
    assert "no reply yet" in result.stderr
    shown = " ".join(result.stderr.split())
    numbers = r"tokens?, first after \d+\.\d\d s, [\d,]+ tokens/s, context \d+ of 256 tokens \(\d+%\)"
    assert len(re.findall(numbers, shown)) == 2
    assert result.stderr.count("user: hello") == 2
    assert result.stdout.count("\n") >= 2


def test_load_continues_a_saved_conversation(
    call: Call, chat_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("chat", chat_run, *SHORT, "--system", "hello", input="hello there\n/save a.json\n")
    result = call("chat", chat_run, *SHORT, input="/load a.json\nhello you\n")
    talk = gptkit.load(chat_run).conversation("hello", max_new_tokens=8, sampler=["greedy"])
    talk.say("hello there")
    assert result.stdout == talk.say("hello you") + "\n"
    assert "2 messages loaded" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found"),
        ("{", "does not hold JSON"),
        ("{}", "does not hold messages"),
        ('[{"role": "user"}]', "does not hold messages"),
        ('[{"role": "user", "content": "a"}]', "do not alternate"),
    ],
)
def test_load_of_other_files(call: Call, chat_run: Path, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert message in " ".join(call("chat", chat_run, input=f"/load {path}\n", code=2).stderr.split())


def test_a_path_is_a_message_and_not_a_command(call: Call, chat_run: Path) -> None:
    assert call("chat", chat_run, *SHORT, input="/etc/hosts\n").stdout.endswith("\n")


def test_system_message_without_support_in_the_template_is_an_error(call: Call, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    directory = make_chat_run(tmp_path / "run", template=template)
    assert "no system" in call("chat", directory, "--system", "a", input="hello\n", code=2).stderr
    assert "no system" in call("chat", directory, *SHORT, input="/system a\n", code=2).stderr


def test_message_longer_than_the_context_prints_a_warning(call: Call, tmp_path: Path) -> None:
    directory = make_chat_run(tmp_path / "run", context_length=32)
    message = call("chat", directory, *SHORT, "--overflow", "stop", input="hello " * 60 + "\n", code=2).stderr
    assert "the model's context 32" in message
    assert "tokens that are not read" in call("chat", directory, *SHORT, input="hello " * 60 + "\n").stderr
    message = call("chat", directory, *SHORT, input="hello\nhello you\nhello there you\n").stderr
    assert "the oldest 2 messages discarded" in message


def test_an_import_names_the_command_that_fits_the_model(call: Call, chat_run: Path, run: Path, tmp_path: Path) -> None:
    for source, message in ((chat_run, "chat: gptkit chat"), (run, "generate: gptkit generate")):
        call("export", source, tmp_path / f"{source.parent.name}-files", "-q")
        imported = tmp_path / source.parent.name
        assert f"{message} {imported}" in call("import", tmp_path / f"{source.parent.name}-files", imported).stderr


def test_in_a_terminal_ctrl_c_stops_the_reply_and_ctrl_d_ends(tmp_path: Path) -> None:
    # A long reply: the tokens that end a turn or a text are excluded.
    run = make_chat_run(tmp_path / "run", context_length=16384)
    tokenizer = gptkit.load(run).tokenizer
    ends = [*tokenizer.encode("<|done|>", allowed_special=("<|done|>",)), tokenizer.end_id]
    terminal, child = pty.openpty()
    command = [sys.executable, "-m", "gptkit", "chat", str(run), "-n", "100000", "--sampler", f"suppress-tokens={ends}"]
    environment = {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    program = subprocess.Popen(
        command,
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment,
        start_new_session=True,
        # Processes of a shell's background job, such as these tests, inherit that it is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    os.close(child)
    screen = ""

    def wait_for(pattern: str, again: Callable[[], None] = lambda: None) -> None:
        """Wait for a text. What a busy process may have missed is done again every five seconds."""
        nonlocal screen
        begin = time.monotonic()
        until, next_time = begin + 240, begin + 5
        while not re.search(pattern, screen):
            assert time.monotonic() < until, screen
            if time.monotonic() > next_time:
                again()
                next_time += 5
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    screen += os.read(terminal, 65536).decode(errors="replace")
                except OSError:  # the terminal is closed
                    assert re.search(pattern, screen), screen
                    return
        screen = screen[re.search(pattern, screen).end() :]  # type: ignore[union-attr]

    try:
        wait_for("> ")
        os.write(terminal, b"hello\n")
        wait_for(r"hello\r\n[\s\S]{3}")
        program.send_signal(signal.SIGINT)
        wait_for(r"stopped\r\n.*> ")
        # Line by line: Ctrl-C while a line is read discards the message.
        os.write(terminal, b'"""hello\n')
        wait_for(r'"""hello\r\n  ')
        os.write(terminal, b"there\n")
        wait_for(r"there\r\n  ")
        os.write(terminal, b'you"""\n')
        wait_for(r'you"""\r\n[\s\S]{3}')
        program.send_signal(signal.SIGINT)
        wait_for(r"stopped\r\n.*> ")
        os.write(terminal, b"/history\n")
        wait_for(r"user: hello\r\nthere\r\nyou\r\n(.|\n)*> ")
        os.write(terminal, b"/nothing\n")
        wait_for("unknown command /nothing(.|\n)*> ")
        time.sleep(0.5)  # input() handles a signal only while it waits, shortly after its prompt
        program.send_signal(signal.SIGINT)
        wait_for("Ctrl-D or /exit ends the conversation(.|\n)*> ", again=lambda: program.send_signal(signal.SIGINT))
        os.write(terminal, b"\x04")
        assert program.wait(120) == 0
    finally:
        program.kill()
        os.close(terminal)


def test_replies_with_a_drafter_are_those_of_plain_decoding(call: Call, chat_run: Path) -> None:
    lines = "hello there\nhello you\n/stats\n"
    plain = call("chat", chat_run, "-n", "12", "--seed", "3", input=lines)
    result = call("chat", chat_run, "-n", "12", "--seed", "3", "--speculate", "{name: ngram, min_n: 1}", input=lines)
    assert result.stdout == plain.stdout
    assert "drafted tokens accepted" in " ".join(result.stderr.split())
