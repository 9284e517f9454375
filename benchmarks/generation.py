"""Decoding speed of gptkit and of other programs on the same model, interleaved.

    python -m benchmarks.generation [--model smollm2|gpt2] [--run RUN] [--gguf FILE …] [--batch 1]

Each program runs in a process of its own, so that no thread pool of another one is in its way, and loads its model before
the measurement; one process at a time computes. A peer that is not installed is skipped with the reason. The weights are
random, except with RUN (a run directory) and for llama.cpp (FILE: a GGUF file of the same architecture): a decode step takes
the same time for all weights.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import environment

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "context_length": 2048,
        "d_model": 576,
        "n_layers": 30,
        "vocab_size": 49152,
        "position": {"name": "rotary", "base": 100000.0},
        "attention": {"name": "grouped-query", "n_heads": 9, "n_kv_heads": 3},
        "norm": {"name": "rms", "eps": 1e-5},
        "feedforward": {"name": "gated", "activation": "silu", "d_hidden": 1536},
        "head": {"name": "linear", "tied": True},
    },
    "gpt2": {
        "context_length": 1024,
        "d_model": 768,
        "n_layers": 12,
        "vocab_size": 50257,
        "position": "learned",
        "attention": {"name": "multi-head", "n_heads": 12, "qkv_bias": True, "output_bias": True},
        "norm": "layer",
        "feedforward": {"name": "mlp", "activation": "gelu-tanh", "bias": True},
        "head": {"name": "linear", "tied": True},
    },
}

Measure = Callable[[], tuple[float, float]]
"""Seconds until the first token, and seconds per step of the others."""


def gptkit_worker(options: argparse.Namespace, dtype: str, precision: str | None, compiled: bool) -> Measure:
    """gptkit, greedy, through the scheduler's batch."""
    from gptkit.inference.batch import Batch
    from gptkit.inference.compiled.decoding import CompiledDecoding
    from gptkit.inference.compiled.form import StepForm
    from gptkit.model.gpt import GPT

    model: Any
    kept: list[Any] = []  # a `CompiledDecoding` does not keep its model
    if precision is not None:
        if options.run is None:
            raise ImportError("a precision needs --run")
        import gptkit

        model = gptkit.load(options.run, precision=precision).model
    else:
        model = GPT(SHAPES[options.model], dtype=getattr(torch, dtype)).eval()
    if compiled:
        kept.append(model)
        model = CompiledDecoding(model)
        if not model.wait(StepForm(many=options.batch > 1)):
            raise ImportError("the step could not be compiled")

    @torch.inference_mode()
    def measure() -> tuple[float, float]:
        assert not compiled or kept
        histories = [list(range(100 + row, 100 + row + options.prompt)) for row in range(options.batch)]
        began = time.perf_counter()
        batch = Batch(model, histories, options.tokens)
        chosen = batch.read().argmax(-1)
        first = time.perf_counter()
        for _ in range(options.tokens - 1):
            for history, token in zip(histories, chosen.tolist(), strict=True):
                history.append(token)
            chosen = batch.step(chosen).argmax(-1)
        return first - began, (time.perf_counter() - first) / (options.tokens - 1)

    return measure


def transformers_worker(options: argparse.Namespace, dtype: str) -> Measure:
    """transformers' generate, greedy, with its default cache."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    made: Any
    if options.model == "gpt2":
        made = GPT2LMHeadModel(GPT2Config())
    else:
        made = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                tie_word_embeddings=True,
                max_position_embeddings=2048,
            )
        )
    model = made.to(getattr(torch, dtype)).eval()
    ids = torch.stack([torch.arange(100 + row, 100 + row + options.prompt) for row in range(options.batch)])

    def run(n_tokens: int) -> float:
        began = time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return time.perf_counter() - began

    def measure() -> tuple[float, float]:
        first = run(1)
        return first, (run(options.tokens) - first) / (options.tokens - 1)

    return measure


def litgpt_worker(options: argparse.Namespace, dtype: str) -> Measure:
    """litgpt's model with its key/value cache, in the loop of its generate; one row, as litgpt generates."""
    litgpt = importlib.import_module("litgpt")
    if options.model != "smollm2" or options.batch > 1:
        raise ImportError("measured for SmolLM2 with one row only")
    config = litgpt.Config.from_name("SmolLM2-135M")
    model: Any = litgpt.GPT(config).to(getattr(torch, dtype)).eval()
    with torch.device("cpu"):
        model.max_seq_length = options.prompt + options.tokens
        model.set_kv_cache(batch_size=1, dtype=getattr(torch, dtype))

    @torch.inference_mode()
    def measure() -> tuple[float, float]:
        began = time.perf_counter()
        positions = torch.arange(options.prompt)
        token = model(torch.arange(100, 100 + options.prompt)[None], positions)[:, -1].argmax(-1, keepdim=True)
        first = time.perf_counter()
        for index in range(options.tokens - 1):
            token = model(token, torch.tensor([options.prompt + index]))[:, -1].argmax(-1, keepdim=True)
        return first - began, (time.perf_counter() - first) / (options.tokens - 1)

    return measure


def llama_cpp_worker(options: argparse.Namespace, file: str) -> Measure:
    """llama.cpp's server in this process, with its own timings; one row."""
    import urllib.request

    xllamacpp = importlib.import_module("xllamacpp")
    if options.batch > 1:
        raise ImportError("measured with one row only")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.n_ctx, parameters.n_parallel, parameters.port = options.prompt + options.tokens + 8, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = torch.get_num_threads()
    server: Any = xllamacpp.Server(parameters)
    body = {
        "prompt": list(range(100, 100 + options.prompt)),
        "n_predict": options.tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "top_k": 1,
        "cache_prompt": False,
    }

    def measure() -> tuple[float, float]:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(), head)
        with urllib.request.urlopen(request, timeout=300) as answer:
            timings = json.load(answer)["timings"]
        return timings["prompt_ms"] / 1e3, 1 / timings["predicted_per_second"]

    return measure


def variants(options: argparse.Namespace) -> dict[str, Callable[[], Measure]]:
    """Each program and setting by name."""
    workers: dict[str, Callable[[], Measure]] = {}
    for dtype in options.dtypes:
        workers[f"transformers {dtype}"] = partial(transformers_worker, options, dtype)
        workers[f"litgpt {dtype}"] = partial(litgpt_worker, options, dtype)
        for compiled, suffix in ((False, ""), (True, " --compile")):
            workers[f"gptkit {dtype}{suffix}"] = partial(gptkit_worker, options, dtype, None, compiled)
    for precision in options.precisions:
        for compiled, suffix in ((False, ""), (True, " --compile")):
            name = f"gptkit --precision {precision}{suffix}"
            workers[name] = partial(gptkit_worker, options, "float32", precision, compiled)
    for file in options.gguf:
        workers[f"llama.cpp {Path(file).name}"] = partial(llama_cpp_worker, options, file)
    return workers


def serve(options: argparse.Namespace) -> None:
    """Measure whenever a line arrives, until the input ends."""
    import resource

    out = os.dup(1)
    os.dup2(2, 1)  # libraries may print

    def answer(**fields: Any) -> None:
        os.write(out, (json.dumps(fields) + "\n").encode())

    try:
        measure = variants(options)[options.worker]()
        measure()
    except ImportError as error:
        answer(skipped=str(error))
        return
    answer(memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    for _ in sys.stdin:
        first, step = measure()
        answer(first=first, step=step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SHAPES), default="smollm2")
    parser.add_argument("--run", help="run directory of this architecture, for precisions")
    parser.add_argument("--gguf", nargs="*", default=[], help="GGUF files for llama.cpp")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16"], help="float32, bfloat16")
    parser.add_argument("--precisions", nargs="*", default=[], help="bf16, int8, int4")
    parser.add_argument("--only", nargs="*", help="parts of the names of variants to measure")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options)
        return
    names = [name for name in variants(options) if not options.only or any(part in name for part in options.only)]
    workers: dict[str, subprocess.Popen[str]] = {}
    memory: dict[str, float] = {}
    print(environment("transformers", "xllamacpp"))
    print(f"{options.model}, {options.batch} x ({options.prompt} + {options.tokens}) tokens, {options.rounds} rounds\n")
    for name in names:
        command = [sys.executable, "-m", "benchmarks.generation", *sys.argv[1:], "--worker", name]
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert worker.stdout is not None
        line = worker.stdout.readline()
        state: dict[str, Any] = json.loads(line) if line else {"skipped": "it ended with an error"}
        if "skipped" in state:
            print(f"{name}: skipped, {state['skipped']}")
            continue
        workers[name], memory[name] = worker, state["memory"]
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for number in range(options.rounds):
        for name in list(workers) if number % 2 == 0 else reversed(workers):
            worker = workers[name]
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("go", file=worker.stdin, flush=True)
            state = json.loads(worker.stdout.readline())
            rounds[name].append((state["first"], state["step"]))
    for worker in workers.values():
        worker.communicate()
    base = next(iter(rounds), None)
    print("| | tokens/s | first token | memory | times as fast as the first (median) |\n|---|---|---|---|---|")
    for name, times in rounds.items():
        step = statistics.median(step for _, step in times)
        first = statistics.median(first for first, _ in times)
        ratio = statistics.median(reference[1] / own[1] for reference, own in zip(rounds[str(base)], times, strict=True))
        print(f"| {name} | {options.batch / step:.0f} | {1e3 * first:.0f} ms | {memory[name] / 1e6:.0f} MB | {ratio:.2f} |")


if __name__ == "__main__":
    main()
