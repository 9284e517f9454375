"""A stream of messages that cannot be written does not fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptkit.core.diagnostics import Diagnostics


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_loses_messages_only() -> None:
    with Path("/dev/full").open("w") as full:
        stream = Diagnostics(full)
        assert stream.write("a" * 100_000) == 100_000
        stream.flush()
        stream.write("b")
        stream.flush()
        assert os.path.sameopenfile(full.fileno(), os.open(os.devnull, os.O_WRONLY))


def test_closed_pipe_loses_messages_only() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        os.close(reading)
        stream = Diagnostics(pipe)
        stream.write("a")
        stream.flush()
        stream.write("b")
        stream.flush()


def test_stream_is_the_present_stderr_unless_given(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Diagnostics()
    stream.write("a message\n")
    assert capsys.readouterr().err == "a message\n"
    assert not stream.isatty()


def test_process_without_stderr_discards_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    stream = Diagnostics()
    assert stream.write("a") == 1
    stream.flush()
