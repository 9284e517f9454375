"""Training of the trials of an experiment in several processes at once."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gptkit.core.atomic import writing
from gptkit.experiments.planning import Planned
from gptkit.experiments.results import TRIALS, Trial, read_trial, trial_key, write_trial
from gptkit.experiments.trial import BUSY, INTERRUPTED
from gptkit.model.plan import available_memory
from gptkit.training.precision import pick_device

__all__ = ["Progress", "default_jobs", "default_threads", "n_cores", "run_trials"]

_POLL = 1.0
_GRACE = 120.0
"""Seconds for a trial to finish its step and save a checkpoint after Ctrl-C."""

_PROCESS = 500_000_000
"""Memory of a process that has imported torch, without tensors."""


@dataclass(frozen=True)
class Progress:
    """A trial that ended, and what remains.

    Attributes:
        trial: its results; `missing` if another process trains it.
        seconds: the duration of its process.
        done: number of trials of this call that ended.
        total: number of trials of this call.
        eta: estimated seconds until the last trial ends.
    """

    trial: Trial
    seconds: float
    done: int
    total: int
    eta: float


def n_cores() -> int:
    """Return the number of cores that this process may use, a part of them with torchrun."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _n_local())


def default_threads(n_trials: int, jobs: int | None) -> int:
    """Return the number of threads of each trial: small models train fastest with one thread in each of many processes."""
    return max(1, n_cores() // min(n_trials, jobs or n_cores()))


def default_jobs(planned: Planned) -> int:
    """Return how many trials run at once: one for each GPU, or as many as cores and memory suffice for."""
    device = pick_device(planned.experiment.variants[0].spec["training"]["device"]).type
    if device == "cuda":
        return max(1, torch.cuda.device_count() // _n_local())
    if device != "cpu":
        return 1
    by_memory = int(available_memory() // (planned.memory + _PROCESS)) // _n_local()
    return max(1, min(n_cores() // planned.experiment.threads, by_memory))


def _n_local() -> int:
    """Return the number of processes that torchrun started on this machine; 1 without torchrun."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def run_trials(
    planned: Planned, directory: Path, trials: Sequence[Trial], jobs: int, report: Callable[[Progress], None]
) -> None:
    """Train and evaluate trials.

    Args:
        planned: the experiment.
        directory: its directory.
        trials: the trials to train.
        jobs: how many run at once.
        report: receives each trial that ends.

    Raises:
        KeyboardInterrupt: Ctrl-C; the running trials have saved a checkpoint.
    """
    waiting, events = list(trials), queue.SimpleQueue[_Event]()
    durations: list[float] = []
    workers: list[_Worker] = []
    try:
        for index in range(min(jobs, len(waiting))):
            workers.append(_Worker(planned, directory, index, events))
            workers[-1].start(waiting.pop(0))
        while any(worker.trial is not None for worker in workers):
            try:
                worker, code = events.get(timeout=_POLL)
            except queue.Empty:
                continue
            if worker.trial is None:
                continue  # a process that was closed has ended
            index = workers.index(worker)
            ended = _result(worker, code, directory)
            durations.append(time.monotonic() - worker.started)
            worker.trial = None
            if ended.status != "finished":
                # What a failed trial has left in its process must not affect another one.
                worker.close()
                workers.append(worker)
                workers[index] = worker = _Worker(planned, directory, worker.index, events) if waiting else worker
            if waiting:
                worker.start(waiting.pop(0))
            else:
                worker.close()
            running = sum(each.trial is not None for each in workers)
            done = len(trials) - len(waiting) - running
            eta = sum(durations) / len(durations) * (len(trials) - done) / jobs
            report(Progress(ended, durations[-1], done, len(trials), eta))
    finally:
        _stop(workers)


class _Worker:
    """A process that trains one trial after the other.

    Attributes:
        index: a number among those that run at once; it selects the GPU.
        process: the process.
        trial: the trial that it trains; None if it trains none.
        started: when that trial was started, in seconds.
    """

    def __init__(self, planned: Planned, directory: Path, index: int, events: queue.SimpleQueue[_Event]) -> None:
        self.index = index
        self.trial: Trial | None = None
        self.started = 0.0
        self._bases = planned.bases
        with writing(directory / TRIALS):
            (directory / TRIALS).mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.trial", str(directory.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(planned, index),
            start_new_session=True,  # so that Ctrl-C reaches this process only, which then stops the trials
        )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def start(self, trial: Trial) -> None:
        """Train a trial; an event follows when it ends."""
        self.trial, self.started = trial, time.monotonic()
        base = str(self._bases[trial.variant].absolute())
        line = json.dumps({"variant": trial.variant, "seed": trial.seed, "base": base}) + "\n"
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which is an event as well
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def close(self) -> None:
        """Let the process end; a trial that runs saves a checkpoint first."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def _listen(self, events: queue.SimpleQueue[_Event]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as replies:
            for reply in replies:
                events.put((self, int(reply)))
        events.put((self, self.process.wait()))


_Event = tuple[_Worker, int]
"""A worker, and the exit code of its trial, or of the process if it has ended."""


def _environment(planned: Planned, device: int) -> Mapping[str, str]:
    """Return the environment of a trial: its threads, its GPU, and nothing of torchrun."""
    torchrun = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in torchrun}
    threads = str(planned.experiment.threads)
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    # The modules that this process imports, also where they are on its path only.
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n_devices > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        own = (device + int(os.environ.get("LOCAL_RANK", "0"))) % n_devices
        environment["CUDA_VISIBLE_DEVICES"] = visible[own] if len(visible) == n_devices else str(own)
    return environment


def _result(worker: _Worker, code: int, directory: Path) -> Trial:
    """Return the results of a trial that ended; those of a crash are written here."""
    assert worker.trial is not None
    trial = read_trial(directory, worker.trial.variant, worker.trial.seed)
    if code in (0, BUSY, INTERRUPTED) or trial.status == "finished":
        return trial
    name = f"{TRIALS}/{trial_key(trial.variant, trial.seed)}"
    if code == -9:
        message = "the process was killed, probably because memory ran out; repeat the command with fewer --jobs"
    else:
        message = f"the process ended with {'signal' if code < 0 else 'exit code'} {abs(code)}; see {name}.log"
    trial = Trial(trial.variant, trial.seed, "failed", message=message, run=name)
    write_trial(trial, directory)
    return trial


def _stop(workers: Sequence[_Worker]) -> None:
    """Let trials save a checkpoint and end; kill them after a second Ctrl-C."""
    for worker in workers:
        worker.close()
    end = time.monotonic() + _GRACE
    try:
        for worker in workers:
            worker.process.wait(max(0.0, end - time.monotonic()))
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
