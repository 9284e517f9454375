"""A server process, for tests of `gptkit serve`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ServerProcess"]


class ServerProcess:
    """`gptkit serve` on a free port, started and ready.

    Args:
        runs: run directories.
        log: the file that receives stderr.
        options: options of the command.
        environment: further environment variables.
        program: what the interpreter runs; the command line by default.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        log: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "gptkit"),
    ) -> None:
        self.log = log
        command = [sys.executable, *program, "serve", *map(str, runs), "--port", "0", *options]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, env={**os.environ, **(environment or {})})
        self.wait_for(lambda: " at http" in self.messages, 120)
        match = re.search(r" at (http://[^/]+)/v1", self.messages)
        assert match, self.messages
        self.url = match[1]

    @property
    def messages(self) -> str:
        """All that was written on stderr."""
        return self.log.read_text(encoding="utf-8")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until a condition holds, or fail with the server's messages."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the server ended:\n{self.messages}"
            assert time.monotonic() < end, f"the condition did not become true in {seconds} s:\n{self.messages[-3000:]}"
            time.sleep(0.02)

    def get(self, path: str) -> str:
        """Return the body of a GET request."""
        with urllib.request.urlopen(self.url + path, timeout=120) as response:
            return str(response.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all labels but the given ones; 0 if it is not there."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name and all(f'{key}="{value}"' in (match[2] or "") for key, value in labels.items()):
                total += float(match[3])
        return total

    def idle(self) -> bool:
        """Whether no request runs or waits."""
        return self.metric("gptkit_running_requests") == self.metric("gptkit_queue_length") == 0

    def access_log(self) -> list[dict[str, Any]]:
        """Return the entries of the access log."""
        return [json.loads(line) for line in self.messages.splitlines() if line.startswith("{")]

    def access_entry(self, request_id: str, seconds: float = 120) -> dict[str, Any]:
        """Return the entry of a request, which is written after its answer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for entry in self.access_log():
                if entry["request"] == request_id:
                    return entry
            time.sleep(0.05)
        raise AssertionError(f"the access log has no entry of request {request_id}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 120) -> int:
        """Send a signal; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
