"""Train one model in several layouts of processes, which are forks of one: importing torch takes longer than the training.

Arguments: the directory, then groups of a number of processes, and what they do one after the other: names of layouts
(``data=2,tensor=2``), or ``resume:LAYOUT:SOURCE``, which continues a copy of the run of another layout for one step.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

import gptkit
from gptkit.training.records import LossPlot
from tests.support.plots import write_one_pixel

STEPS = 50

TEXT = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen jugs.\n\n" * 30

SPEC: dict[str, Any] = {
    "tokenizer": "byte",
    "model": {
        "context_length": 16,
        "vocab_size": 260,  # has two and four equal parts
        "d_model": 16,
        "n_layers": 2,
        "position": "rotary",
        "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "qk_norm": "rms", "sinks": True},
        "feedforward": {"name": "gated", "d_hidden": 24, "bias": True},
        "head": {"name": "linear", "tied": True},
    },
    "training": {
        "steps": STEPS,
        "batch_size": 8,
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
        "evaluate_every": 25,
        "evaluate_batches": 3,
        "sample_every": None,
        "sample_tokens": 4,
        "checkpoint_every": 10,
        "clip": 0.5,
        "schedule": "constant",
        "callbacks": [{"name": "ema", "decay": 0.8}, {"name": "norms", "every": 10, "activations": False}],
    },
}


def parallel(layout: str) -> dict[str, int]:
    """Return a layout as fields of `training.parallel`."""
    return {name: int(number) for name, _, number in (part.partition("=") for part in layout.split(",") if part)}


def train(directory: Path, layout: str, **training: Any) -> None:
    spec = {**SPEC, "name": "layout", "data": {"name": "text", "path": str(directory / "corpus.txt")}}
    spec["training"] = {**SPEC["training"], "parallel": parallel(layout), **training}
    gptkit.train(spec, directory / (layout or "one"), progress=False)


def resume(directory: Path, layout: str, source: str) -> None:
    """Continue a copy of another layout's run for one step."""
    copied = directory / f"{source}-on-{layout or 'one'}"
    if os.environ.get("RANK", "0") == "0":
        shutil.copytree(directory / source, copied)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    fields = {"data": None, "shard": 1, "tensor": 1, **parallel(layout)}
    changes = [f"training.parallel.{name}={json.dumps(number)}" for name, number in fields.items()]
    gptkit.resume(copied, [f"training.steps={STEPS + 1}", *changes], progress=False)


def work(directory: Path, tasks: list[str], rank: int, count: int, port: int) -> None:
    """Do the tasks as one of several processes, with the variables of torchrun."""
    if count > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in ranks.items()}})
        # Once for all tasks; otherwise each training run creates a process group.
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=300))
    for task in tasks:
        if task.startswith("resume:"):
            _, layout, source = task.split(":")
            resume(directory, layout, source)
        else:
            train(directory, "" if task == "one" else task)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def run(directory: Path, tasks: list[str], count: int) -> None:
    """Do the tasks in a number of new processes.

    Raises:
        SystemExit: one of them failed.
    """
    fork = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [fork.Process(target=work, args=(directory, tasks, rank, count, port)) for rank in range(count)]
    for process in processes:
        process.start()
    sentinels = {process.sentinel: process for process in processes}
    while sentinels:
        for ended in multiprocessing.connection.wait(list(sentinels)):
            process = sentinels.pop(ended)  # type: ignore[call-overload]
            process.join()
            if process.exitcode:
                for other in sentinels.values():  # which would wait for it
                    other.terminate()
                sys.exit(f"{tasks}: a process of {count} ended with status {process.exitcode}")


def main(directory: Path, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    LossPlot.on_checkpoint = write_one_pixel  # type: ignore[method-assign]
    groups: list[tuple[int, list[str]]] = []
    for argument in arguments:
        if argument.isdigit():
            groups.append((int(argument), []))
        else:
            groups[-1][1].append(argument)
    for count, tasks in groups:
        run(directory, tasks, count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
