"""Resuming after kill -9 gives bit-identical weights to an uninterrupted run."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.training.records import read_metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a matter of POSIX")

SPEC: dict[str, Any] = {
    "tokenizer": {"name": "bpe", "vocab_size": 300},
    "model": {
        "context_length": 16,
        "d_model": 16,
        "n_layers": 2,
        "attention": {"name": "multi-head", "n_heads": 2},
        "block": {"name": "pre-norm", "dropout": 0.1},
        "head": {"name": "linear", "tied": True},
    },
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {
        "steps": 40,
        "batch_size": 4,
        "log_every": 3,
        "evaluate_every": 10,
        "evaluate_batches": 2,
        "sample_every": 10,
        "sample_tokens": 8,
        "checkpoint_every": 4,
        "device": "cpu",
        "trackers": ["csv"],
    },
}


def train(directory: str, corpus: str) -> None:
    """Train in a separate process."""
    torch.set_num_threads(1)
    os.chdir(corpus)
    from gptkit.runs.train import train

    train(SPEC, directory, resume=True, progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    words = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat", "and", "slept", "well", "\n"], k=4000)
    (directory / "corpus.txt").write_text(" ".join(words))
    return directory


def start(context: Any, directory: Path, corpus: Path) -> Any:
    process = context.Process(target=train, args=(str(directory), str(corpus)))
    process.start()
    return process


def contents(run: Path) -> dict[str, bytes]:
    """Return everything that must be equal: all contents except times and paths."""
    latest = CheckpointStore(run / "checkpoints").latest()
    assert latest is not None
    read_state(latest, verify=True)
    files = [
        "spec.yaml",
        "samples.txt",
        *(f"checkpoints/{latest.name}/{kind}.safetensors" for kind in ("model", "optimizer")),
    ]
    result = {name: (run / name).read_bytes() for name in files}
    rows = [
        {key: value for key, value in row.items() if key != "tokens_per_second"}
        for row in read_metrics(run / "metrics.jsonl")
    ]
    result["metrics"] = repr(rows).encode()
    result["steps of the table"] = repr([line.split(",")[0] for line in (run / "metrics.csv").read_text().split()]).encode()
    return result


@pytest.mark.slow
def test_resume_after_kills_at_random_moments(tmp_path: Path, corpus: Path) -> None:
    # A fork server that has imported torch once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "gptkit.runs.train", __name__])
    whole = tmp_path / "whole"
    start(context, tmp_path / "warm-up", corpus).join(600)
    began = time.monotonic()
    process = start(context, whole, corpus)
    process.join(600)
    duration = time.monotonic() - began
    assert process.exitcode == 0
    expected = contents(whole)

    moments = random.Random(2)
    killed = tmp_path / "killed"
    n_killed, reached = 0, []
    while n_killed < 10:
        process = start(context, killed, corpus)
        # Early kills interrupt the tokenizer, the data and the first checkpoint; no run is awaited to its end.
        process.join(moments.uniform(0.02, 0.6) * duration)
        if process.exitcode is not None:
            # The run finished between two kills: start another one.
            assert process.exitcode == 0
            assert contents(killed) == expected
            killed = tmp_path / f"killed-{n_killed}"
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join(600)
        n_killed += 1
        reached.append(CheckpointStore(killed / "checkpoints").steps()[-1:])
    process = start(context, killed, corpus)
    process.join(600)
    assert process.exitcode == 0
    assert contents(killed) == expected, f"the checkpoints at which it was killed: {reached}"
    assert not [path for path in killed.rglob(".*") if path.name != ".lock"], "something was left behind"
