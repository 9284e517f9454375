"""SIGTERM ends a command with a message, and unfinished files are removed as after Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_command_that_waits_ends_with_a_message(run: Path) -> None:
    script = """
        import sys
        from gptkit.cli.main import main

        class Stdin:
            buffer = property(lambda self: (print("reads", file=sys.stderr, flush=True), real.buffer)[1])
            def __getattr__(self, name): return getattr(real, name)

        real, sys.stdin = sys.stdin, Stdin()
        main()
    """
    process = start(script, "generate", run, "-")
    assert process.stderr is not None
    while process.stderr.readline() != "reads\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, messages = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    assert messages.splitlines()[-1] == "terminated by SIGTERM"
    assert "Traceback" not in messages


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from gptkit.cli.failures import end_on_sigterm
        from gptkit.core.atomic import atomic_directory

        end_on_sigterm()
        with atomic_directory(Path(sys.argv[1])) as new:
            (new / "train.bin").write_bytes(b"half")
            print("there", flush=True)
            time.sleep(60)
    """
    process = start(script, tmp_path / "t")
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (143, "terminated by SIGTERM\n")
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored() -> None:
    script = """
        import os, signal
        from gptkit.cli.failures import end_on_sigterm

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_on_sigterm()
        os.kill(os.getpid(), signal.SIGTERM)
    """
    process = start(script)
    assert process.wait(timeout=60) == 0
    process.communicate()
