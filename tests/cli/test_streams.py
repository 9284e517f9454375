"""Output to a full disk, to a closed pipe, and in an encoding that cannot represent it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from gptkit.cli.main import main; main()"]
LIGHT = [*COMMAND, "components", "schedule"]
posix = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@posix
@pytest.mark.parametrize("command", [LIGHT, [*COMMAND, "--help"]])
def test_full_disk_on_stdout_is_reported(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr == "error: stdout cannot be written: No space left on device\n"


@posix
def test_a_reader_that_stops_reading_ends_the_command_without_a_message() -> None:
    process = subprocess.Popen(LIGHT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, message = process.communicate(timeout=100)
    assert (process.returncode, message) == (1, "")


@posix
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_empty_and_accept_output(closed: str, tmp_path: Path) -> None:
    script = (
        "import sys, os; from gptkit.cli import console; from gptkit.cli.streams import open_closed_streams; "
        "open_closed_streams(); f = open(sys.argv[1], 'w'); assert f.fileno() > 2; "
        "os.write(1, b'of a library'); console.write('text'); print('x', file=sys.stderr); "
        "f.write(sys.stdin.buffer.read().decode())"
    )
    command = f'"$0" -c "$1" "$2" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, script, tmp_path / "file"], stdin=subprocess.DEVNULL, timeout=100
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


@posix
def test_prompt_of_a_closed_stdin_is_empty(run: Path) -> None:
    command = '"$0" -m gptkit generate "$1" - -n 1 -q <&-'
    done = subprocess.run(["sh", "-c", command, sys.executable, run], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
