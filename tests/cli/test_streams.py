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
