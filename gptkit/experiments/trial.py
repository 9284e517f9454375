"""Trials of an experiment, in a program of its own, so that a crash ends one trial and nothing else.

::

    python -m gptkit.experiments.trial DIRECTORY

Each line of the standard input is a trial as JSON, with its variant, its seed, and the base directory of the spec's relative
paths; after each, a line with its exit code is written to the standard output. One process trains several trials, since
importing torch takes longer than training a small model. A trial trains or resumes a run, evaluates it, and writes the
results, also those of a failure. The program stops cleanly, with a checkpoint, on Ctrl-C and when its standard input is
closed: so no trial outlives the program that started it.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from gptkit.core.atomic import writing
from gptkit.core.errors import GptkitError
from gptkit.core.lock import HeldError, Lock
from gptkit.core.memory import is_exhaustion
from gptkit.experiments.results import TRIALS, Trial, read_trial, read_variant, trial_key, write_trial

__all__ = ["BUSY", "INTERRUPTED", "PREPARED", "main", "run_trial"]

BUSY, INTERRUPTED = 75, 130
"""Exit codes: another process trains the trial; it was stopped."""

PREPARED = "prepared"
"""Directory of an experiment with the prepared tokens of all trials."""

_PATIENCE = 60.0
"""Seconds to wait for a process that stops: that of a comparison which was killed."""


def main(directory: Path) -> int:
    """Run the trials that the standard input names; return the exit code."""
    replies = os.dup(1)
    requests = _Requests()
    while (line := requests.next()) is not None:
        request = json.loads(line)
        os.chdir(request["base"])
        code = _run_logged(directory, request["variant"], request["seed"], requests)
        os.write(replies, f"{code}\n".encode())
        if code == INTERRUPTED:
            return INTERRUPTED
        requests.done()
    return 0


def _run_logged(directory: Path, variant: str, seed: int, requests: _Requests) -> int:
    """Run a trial with its output in a file; return the exit code."""
    key = trial_key(variant, seed)
    log = directory / TRIALS / f"{key}.log"
    with writing(log), log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    try:
        with Lock(directory / TRIALS / f".{key}.lock").awaited(_PATIENCE):
            if read_trial(directory, variant, seed).status == "finished":
                return 0
            trial = run_trial(directory, variant, seed)
            # Libraries turn an interruption into errors of their own, which are not the trial's.
            if trial is None or (trial.status == "failed" and requests.ended):
                return INTERRUPTED
            write_trial(trial, directory)
            return 0
    except HeldError:
        return BUSY
    except KeyboardInterrupt:
        return INTERRUPTED


def run_trial(directory: Path, variant: str, seed: int) -> Trial | None:
    """Train and evaluate a trial.

    Args:
        directory: the experiment's directory.
        variant: key of the variant.
        seed: the seed.

    Returns:
        The results, also of a failed training; None if the training was stopped.
    """
    name = f"{TRIALS}/{trial_key(variant, seed)}"
    try:
        return _train(directory, variant, seed, name)
    except GptkitError as error:
        message = f"{error.message} ({error.hint})" if error.hint else error.message
    except Exception as error:
        # A component of a third party may raise anything; the other trials continue.
        import traceback

        traceback.print_exc()
        what = "memory ran out: " if is_exhaustion(error) else ""
        message = f"{what}{type(error).__name__}: {error}"
    return Trial(variant, seed, "failed", message=message, run=name)


def _train(directory: Path, variant: str, seed: int, name: str) -> Trial | None:
    from gptkit.checkpoint.store import CheckpointStore
    from gptkit.experiments.measuring import evaluate_trial
    from gptkit.files import validate_data
    from gptkit.runs.bench_memory import PeakMemory
    from gptkit.runs.directory import RunDirectory
    from gptkit.runs.spec import ExperimentSpec
    from gptkit.runs.train import train
    from gptkit.training.allocator import set_allocators
    from gptkit.training.precision import pick_device

    set_allocators()
    gc.collect()  # what an earlier trial of this process has left
    chosen = read_variant(directory, variant)
    data = {**chosen.spec, "name": chosen.label[:200]}
    data["training"] = {**chosen.spec["training"], "seed": seed, "keep_checkpoints": 1}
    spec = validate_data(data, ExperimentSpec)
    trained = CheckpointStore(RunDirectory(directory / name).checkpoints).steps()[-1:] == [spec.training.steps]
    memory = PeakMemory(pick_device(spec.training.device))
    run = train(spec, directory / name, resume=True, progress=False, prepared=directory / PREPARED)
    if not run.finished:
        return None
    return evaluate_trial(run, variant, seed, name, None if trained else memory.bytes)


class _Requests:
    """Lines of the standard input. Its end while a trial runs, or before it begins, requests a stop, as Ctrl-C does.

    Attributes:
        ended: the standard input has ended.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._running = self.ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def next(self) -> bytes | None:
        """Return the next line; None at the end of the input.

        Raises:
            KeyboardInterrupt: the input ended after this line; its trial does not begin.
        """
        line = self._lines.get()
        self._running = line is not None
        if self._running and self.ended:  # read after `_running` is set, as `_read` sets and reads them
            raise KeyboardInterrupt
        return line

    def done(self) -> None:
        """Record that no trial runs."""
        self._running = False

    def _read(self) -> None:
        rest = b""
        # Not through sys.stdin, whose lock this thread would hold when the interpreter ends.
        while data := os.read(0, 4096):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)
        self.ended = True
        if self._running:
            os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    try:
        code = main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)
