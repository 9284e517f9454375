"""Train every case of `test_distributed`; started by torchrun in two processes, and in a single process."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

import gptkit
from gptkit.training.records import LossPlot
from tests.support.looped import looped_plugin
from tests.support.plots import write_one_pixel
from tests.support.plugin_registry import registry_of

TEXT = "The quick brown fox jumps over the lazy dog. " * 40
MODEL: dict[str, Any] = {"context_length": 16, "d_model": 16, "n_layers": 2, "attention": {"n_heads": 2}}
EXPERTS = {"name": "experts", "n_experts": 4, "expert": {"name": "gated", "d_hidden": 16}}

TENSOR: dict[str, Any] = {"parallel": {"tensor": 2}}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # name: model settings, training settings
    "replicas": ({}, {}),
    "plain": ({}, {"parallel": {"shard": 2}}),
    "tied": ({"head": {"name": "linear", "tied": True}}, {"parallel": {"shard": 2}}),
    "experts": (
        {"feedforward": {**EXPERTS, "router": {"name": "top-k-softmax", "k": 2, "balance_loss": 0.01}}},
        {"parallel": {"shard": 2}, "grad_accumulation": 1},
    ),
    "experts-replicas": (
        {"feedforward": {**EXPERTS, "router": {"name": "top-k-softmax", "k": 2, "balance_loss": 0.01}}},
        {"grad_accumulation": 1},
    ),
    "selection-bias": (
        {"feedforward": {**EXPERTS, "router": {"name": "sigmoid", "k": 2, "bias_rate": 0.001}}},
        {"parallel": {"shard": 2}},
    ),
    "t5-bias": ({"position": "t5-bias"}, {"parallel": {"shard": 2}}),
    "ema": ({}, {"parallel": {"shard": 2}, "callbacks": [{"name": "ema", "decay": 0.8}]}),
    "schedule-free": ({"head": {"name": "linear", "tied": True}}, {"parallel": {"shard": 2}, "optimizer": "schedule-free"}),
    "ademamix": (
        {},
        {"parallel": {"shard": 2}, "optimizer": {"name": "ademamix", "beta3_warmup_steps": 6}, "grad_accumulation": 2},
    ),
    "divided-schedule-free": ({}, {**TENSOR, "optimizer": "schedule-free"}),
    "divided-adopt": ({}, {**TENSOR, "optimizer": {"name": "adopt", "eps": 1e-3, "cautious": True}}),
    "accumulated": ({"position": "learned"}, {"parallel": {"shard": 2}, "grad_accumulation": 2}),
    "resumed": ({}, {"parallel": {"shard": 2}, "callbacks": [{"name": "ema", "decay": 0.8}]}),
    "frozen": ({}, {"parallel": {"shard": 2}, "freeze": ["embedding", "blocks.0"]}),
    "frozen-replicas": ({}, {"freeze": ["*", "!*norm*", "!head"], "optimizer": {"name": "adamw", "learning_rate": 0.02}}),
    "low-rank": (
        {"linear": {"name": "low-rank", "rank": 2}},
        {"parallel": {"shard": 2}, "optimizer": {"name": "adamw", "learning_rate": 0.02}},
    ),
    "started": ({"linear": {"name": "low-rank", "rank": 2}}, {"parallel": {"shard": 2}}),
    "recomputed": ({}, {"parallel": {"shard": 2}, "recompute": "blocks"}),
    "looped": ({"block": {"name": "looped", "times": 3}}, {"parallel": {"shard": 2}, "grad_accumulation": 2}),
    "looped-recomputed": (
        {"block": {"name": "looped", "times": 3}, "head": {"name": "linear", "tied": True}},
        {"parallel": {"shard": 2}, "recompute": "blocks"},
    ),
    "looped-replicas": ({"block": {"name": "looped", "times": 3}}, {}),
    "divided": ({"feedforward": {**EXPERTS, "router": {"name": "top-k-softmax", "k": 2, "balance_loss": 0.01}}}, TENSOR),
    "divided-recomputed": ({"attention": {"n_heads": 2, "dropout": 0.0}}, {**TENSOR, "recompute": "blocks"}),
    "divided-frozen": ({}, {**TENSOR, "freeze": ["embedding", "blocks.0"], "grad_accumulation": 2}),
    "divided-started": ({"position": "alibi", "vocab_size": None}, TENSOR),
    "divided-latent": (
        {"attention": {"name": "latent", "n_heads": 2, "kv_rank": 6, "q_rank": 5, "d_nope": 4, "d_rotary": 4}},
        TENSOR,
    ),
    "divided-head": (
        {"head": {"name": "linear", "bias": True, "softcap": 8.0, "z_loss": 0.01, "label_smoothing": 0.1}},
        TENSOR,
    ),
    "divided-tied": (
        {"head": {"name": "linear", "tied": True, "bias": True}, "embedding": {"name": "token", "d_embedding": 12}},
        TENSOR,
    ),
    "divided-multi-token": ({"head": "multi-token", "position": "rotary"}, TENSOR),
    "divided-odd-vocabulary": ({"vocab_size": 261}, TENSOR),
    "divided-dropout": ({"embedding": {"name": "token", "dropout": 0.2}}, TENSOR),
    "exported": (
        {
            "norm": "rms",
            "position": "rotary",
            "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 2},
            "feedforward": {"name": "gated", "d_hidden": 24},
        },
        {"parallel": {"shard": 2}},
    ),
    "one-block": ({"block": "one-block", "n_layers": 3, "position": "t5-bias"}, {"parallel": {"shard": 2}}),
}


def spec(name: str, alone: bool, corpus: Path) -> dict[str, Any]:
    model, training = CASES[name]
    training = dict(training)
    if "tensor" in training.get("parallel", {}):
        model = {"vocab_size": 260, **model}  # the tokenizer's 257 ids have no equal parts
    if alone:
        parallel = training.pop("parallel", {})
        # The parts that two processes compute: losses that are not means over tokens are computed per part.
        parts = 2 // parallel.get("tensor", 1)
        training["grad_accumulation"] = parts * training.get("grad_accumulation", 1)
    return {
        "name": name,
        "tokenizer": "byte",
        "model": {**MODEL, **model},
        "data": {"name": "text", "path": str(corpus)},
        "training": {
            "steps": 10,
            "batch_size": 8,
            "precision": "fp32",
            "device": "cpu",
            "log_every": 1,
            "evaluate_every": 5,
            "evaluate_batches": 3,
            "sample_every": None,
            "sample_tokens": 4,
            "checkpoint_every": 5,
            "schedule": "constant",
            **training,
        },
    }


def main(directory: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    LossPlot.on_checkpoint = write_one_pixel  # type: ignore[method-assign]
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        # Once for all cases; otherwise each training run creates a process group.
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=300))
    corpus, registry = directory / "corpus.txt", registry_of(looped=looped_plugin)
    losses = {}
    for name in names:
        given, run_directory = spec(name, count == 1, corpus), directory / f"{name}-{count}"
        if name == "started":
            # From the weights of another case, without adapters.
            given["training"]["init_from"] = str(directory / "plain-1")
        train = partial(gptkit.train, registry=registry, progress=False)
        if name == "resumed":
            # From shards to replicas and back, with checkpoints in between.
            given["training"]["steps"] = 5
            train(given, run_directory)
            resume = partial(gptkit.resume, run_directory, registry=registry, progress=False)
            resume(["training.steps=7", "training.parallel.shard=1"])
            run = resume(["training.steps=10", f"training.parallel.shard={count}"])
        else:
            run = train(given, run_directory)
        with torch.no_grad():
            losses[name] = float(run.model(torch.arange(16)[None], torch.arange(1, 17)[None]).loss)
    if count > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    (directory / f"losses-{count}-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
