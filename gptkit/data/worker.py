"""Worker processes that encode jobs, and the pool of them.

A worker receives the tokenizer and then jobs on its standard input, and returns results on its standard output. It is a
program of its own, so it needs neither the memory nor the modules of the main process, and ends when that one does.
Both send Python objects (pickle) through these pipes, which no other program reads or writes; nothing is pickled to a file.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from gptkit.core.errors import DataError, GptkitError
from gptkit.data.jobs import Encoded, Job, JobEncoder
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["encode_in_processes", "main", "portable"]

_PENDING = 2
"""Number of jobs for each worker that are read ahead."""


def portable(tokenizer: Tokenizer) -> bytes | None:
    """Return the tokenizer in the form in which workers receive it; None if it cannot be sent to another process."""
    try:
        data = pickle.dumps(tokenizer)
    except Exception:  # whatever a third party's object raises
        return None
    module = sys.modules.get(type(tokenizer).__module__)
    # A class of the main script is not importable elsewhere.
    return None if module is None or type(tokenizer).__module__ == "__main__" else data


def encode_in_processes(jobs: Iterable[Job], tokenizer: bytes, workers: int) -> Iterator[Encoded]:
    """Yield the results of jobs in their order.

    Args:
        jobs: the jobs; a few are read ahead.
        tokenizer: from `portable`.
        workers: number of processes.

    Raises:
        GptkitError: raised by a worker, or a worker ended.
    """
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    pending: deque[Future[Encoded]] = deque()
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(_Worker(tokenizer)))
        pool = ThreadPoolExecutor(workers)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

        def run(job: Job) -> Encoded:
            worker = idle.get()
            try:
                return worker.encode(job)
            finally:
                idle.put(worker)

        for job in jobs:
            pending.append(pool.submit(run, job))
            if len(pending) >= workers * _PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Worker:
    """A worker process."""

    def __init__(self, tokenizer: bytes) -> None:
        # One thread each: the processes are the parallelism.
        threads = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        script = f"import sys; sys.path[:] = {sys.path!r}; from gptkit.data.worker import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads},
            cwd=Path.cwd(),
        )
        self._tokenizer: bytes | None = tokenizer

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # unsent data of a process that ended
                if stream is not None:
                    stream.close()

    def encode(self, job: Job) -> Encoded:
        """Send a job and return its result."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            if self._tokenizer is not None:
                _send(stdin, self._tokenizer)
                self._tokenizer = None
            _send(stdin, pickle.dumps(job, pickle.HIGHEST_PROTOCOL))
            outcome, value = pickle.loads(_receive(stdout))  # from this program's own process, through a pipe
        except (OSError, EOFError):
            raise DataError(
                f"a process that tokenizes ended with code {self._process.wait()}: it was stopped, or had too little memory",
                hint="Repeat the command; with --workers 1 it needs less memory.",
            ) from None
        if outcome == "error":
            kind, message, hint = value
            raise kind(message, hint=hint)
        if outcome == "crash":
            raise RuntimeError(value)
        result: Encoded = value
        return result


def main() -> None:
    """Encode the jobs on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which ends this one
    source = sys.stdin.buffer
    # What a plugin prints must not be read as a result.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    encoder: JobEncoder | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            data = _receive(source)
            try:
                if encoder is None:
                    encoder = JobEncoder(pickle.loads(data), threads=False)
                    continue
                reply: tuple[str, Any] = ("done", encoder(pickle.loads(data)))
            except GptkitError as error:
                # Exceptions with keyword arguments cannot be restored by pickle.
                reply = ("error", (type(error), error.message, error.hint))
            except Exception:  # an internal error: the main process raises it, with this traceback
                reply = ("crash", traceback.format_exc())
            _send(results, pickle.dumps(reply, pickle.HIGHEST_PROTOCOL))


def _send(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    size = int.from_bytes(header, "little")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
