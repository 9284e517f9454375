"""Long operations are shown on stderr, short ones are not."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from gptkit.core import activity
from gptkit.core.activity import working


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "DELAY", 0.05)


def wait_for(text: str, out: io.StringIO) -> None:
    """Wait until a text is shown, by a thread that a busy machine may let wait."""
    end = time.monotonic() + 60
    while text not in out.getvalue():
        assert time.monotonic() < end, out.getvalue()
        time.sleep(0.01)


def screen(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=60), out


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_operation_is_shown_with_its_progress(terminal: bool) -> None:
    console, out = screen(terminal)
    with working("counting", console=console) as report:
        report(1, 4)
        wait_for("counting … 25 %", out)
        report(2, 4)
        if terminal:
            wait_for("50 %", out)
        else:
            time.sleep(0.2)
    assert ("50 %" in out.getvalue()) == terminal  # plain lines are printed every half minute
    assert ("\x1b" in out.getvalue()) == terminal


def test_a_short_operation_prints_nothing() -> None:
    console, out = screen(False)
    with working("counting", console=console):
        pass
    time.sleep(0.15)
    assert out.getvalue() == ""


@pytest.mark.parametrize("outer_quiet", [False, True])
def test_quiet_and_inner_operations_add_nothing(outer_quiet: bool) -> None:
    console, out = screen(False)
    with working("outer", quiet=outer_quiet, console=console), working("inner", quiet=True, console=console):
        if not outer_quiet:
            wait_for("outer …\n", out)
        time.sleep(0.2)
    assert out.getvalue() == ("" if outer_quiet else "outer …\n")


def test_an_error_ends_the_display() -> None:
    console, out = screen(True)

    def fail() -> None:
        with working("failing", console=console):
            wait_for("failing", out)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    shown = len(out.getvalue())
    time.sleep(0.2)
    assert len(out.getvalue()) == shown
    assert not activity._shown
