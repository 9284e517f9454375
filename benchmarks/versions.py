"""Speed of two versions of gptkit on the same models, interleaved.

    git worktree add ../before COMMIT
    python -m benchmarks.versions ../before . [--rows "decoding, bf16" …] [--rounds 5]

Each version runs in a process of its own with its checkout on the path, and one process at a time computes. The models are
GPT-2 124M, and 6 layers of width 384. A ratio above 1 means that the second version is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gptkit.model.gpt import GPT


def spec(context: int, width: int, layers: int, heads: int) -> dict[str, Any]:
    """The spec of a GPT-2 shape; both versions must read it."""
    return {
        "context_length": context,
        "d_model": width,
        "n_layers": layers,
        "position": "learned",
        "attention": {"name": "multi-head", "n_heads": heads, "qkv_bias": True, "output_bias": True},
        "norm": "layer",
        "feedforward": {"name": "mlp", "activation": "gelu-tanh", "bias": True},
        "head": {"name": "linear", "tied": True},
    }


def decoding(dtype: torch.dtype, rows: int) -> Callable[[], object]:
    """Greedy decoding of 48 tokens after 64, of GPT-2 124M."""
    model = GPT(spec(1024, 768, 12, 12), 50257).to(dtype).eval()
    ids = torch.randint(50257, (rows, 64))

    @torch.inference_mode()
    def run() -> None:
        cache, piece = model.new_cache(rows, 112), ids
        for _ in range(48):
            logits = model(piece, cache=cache, last_only=True).logits
            assert logits is not None
            piece = logits[:, -1].argmax(-1, keepdim=True)

    return run


def training(shape: dict[str, Any], vocab: int, rows: int) -> Callable[[], object]:
    """A training step: forward, backward and AdamW, in bf16 autocast."""
    model = GPT(shape, vocab).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(vocab, (rows, shape["context_length"]))
    targets = ids.roll(-1, 1)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(ids, targets).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


ROWS: dict[str, Callable[[], Callable[[], object]]] = {
    "decoding, bf16": lambda: decoding(torch.bfloat16, 1),
    "decoding 8 texts, bf16": lambda: decoding(torch.bfloat16, 8),
    "decoding, fp32": lambda: decoding(torch.float32, 1),
    "training 124M, 2 × 1024": lambda: training(spec(1024, 768, 12, 12), 50257, 2),
    "training 124M, 4 × 256": lambda: training(spec(256, 768, 12, 12), 50257, 4),
    "training 6 × 384, vocab 50257, 16 × 256": lambda: training(spec(256, 384, 6, 6), 50257, 16),
    "training 6 × 384, vocab 65, 16 × 256": lambda: training(spec(256, 384, 6, 6), 65, 16),
}


def serve(row: str) -> None:
    """Measure whenever a line arrives, until the input ends."""
    torch.manual_seed(0)
    run = ROWS[row]()
    run()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run()
        print(json.dumps(time.perf_counter() - began), flush=True)


def start(checkout: Path, row: str) -> subprocess.Popen[str]:
    """Start the worker of a version."""
    if not (checkout / "gptkit" / "__init__.py").is_file():
        raise SystemExit(f"{checkout} is not a checkout of gptkit")
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--worker", row],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
    )
    assert worker.stdout is not None
    if not worker.stdout.readline():
        raise SystemExit(f"{checkout} cannot compute {row}")
    return worker


def ask(worker: subprocess.Popen[str]) -> float:
    """Return the seconds of one measurement."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(file=worker.stdin, flush=True)
    return float(json.loads(worker.stdout.readline()))


def measure(row: str, before: Path, after: Path, rounds: int) -> str:
    """Return the line of a row."""
    workers = [start(before, row), start(after, row)]
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[which].append(ask(workers[which]))
    for worker in workers:
        worker.communicate()
    ratios = sorted(old / new for old, new in zip(*seconds, strict=True))
    old, new = (statistics.median(each) * 1e3 for each in seconds)
    return f"| {row} | {old:,.0f} ms | {new:,.0f} ms | {statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f}) |"


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path, help="checkout of the first version")
    parser.add_argument("after", nargs="?", type=Path, help="checkout of the second version")
    parser.add_argument("--rows", nargs="*", choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options.worker)
        return
    if options.before is None or options.after is None:
        parser.error("give two checkouts")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds\n")
    print("| | before | after | before / after (range) |\n|---|---|---|---|")
    for row in options.rows:
        print(measure(row, options.before, options.after, options.rounds), flush=True)


if __name__ == "__main__":
    main()
