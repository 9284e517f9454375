"""Processes that check components, one for each core: each takes the next component when it has finished one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Thread

from gptkit.core.errors import GptkitError

__all__ = ["Pool"]

_COSTLY = ("format", "attention", "family", "engine", "position", "block")
"""Kinds whose checks take longest, in this order: a component that is begun last would keep one process busy alone."""
_TOGETHER = ("format",)
"""Kinds whose components one process checks, since it writes a model in each format for the checks of all of them."""


class Pool:
    """Processes that check some components; they start at once.

    Args:
        names: kind and name of each component.
    """

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for each in sorted(names, key=_rank):
            groups.setdefault((each[0], "") if each[0] in _TOGETHER else each, []).append(each)
        self._waiting: SimpleQueue[list[tuple[str, str]]] = SimpleQueue()
        for group in groups.values():
            self._waiting.put(group)
        self._results: dict[tuple[str, str], dict[str, str]] = {}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # Every process computes on one core.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "gptkit.docs.checked"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
            for _ in range(min(len(groups), cores))
        ]
        self._threads = [Thread(target=self._give, args=(process,), daemon=True) for process in self._processes]
        for thread in self._threads:
            thread.start()

    def _give(self, process: subprocess.Popen[str]) -> None:
        """Give a process one component after another, until none is waiting or the process has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as stream:
                while True:
                    for each in self._waiting.get_nowait():
                        stream.write(json.dumps(each) + "\n")
                        stream.flush()
                        answer = process.stdout.readline()
                        if not answer:
                            return
                        self._results[each] = json.loads(answer)
        except (Empty, OSError):  # nothing is waiting; the process has ended, and its status says why
            return

    def results(self) -> dict[tuple[str, str], dict[str, str]]:
        """Return the outcome of each check by kind and name of the component, when all are checked.

        Raises:
            GptkitError: a process ended with an error.
        """
        for process, thread in zip(self._processes, self._threads, strict=True):
            thread.join()
            if process.wait():
                self.stop()
                raise GptkitError(
                    f"the conformance checks ended with status {process.returncode}",
                    hint="Run them with pytest: gptkit.testing.parametrize_checks.",
                )
        return dict(self._results)

    def stop(self) -> None:
        """End the processes."""
        for process, thread in zip(self._processes, self._threads, strict=True):
            process.kill()
            process.wait()
            thread.join()
            if process.stdout is not None:
                process.stdout.close()


def _rank(name: tuple[str, str]) -> int:
    return _COSTLY.index(name[0]) if name[0] in _COSTLY else len(_COSTLY)
