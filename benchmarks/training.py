"""Training speed of gptkit and of other programs on the same shapes, interleaved.

    python -m benchmarks.training --nanogpt DIR [--rows 124M-1024 vocab-65 …] [--rounds 5] [--allocator] [--check-loss]

DIR holds nanoGPT's model.py. A measured step is a whole one: forward, backward, clipping to norm 1, AdamW as each program
sets it up, in bf16 autocast on fixed token ids. Each program runs in a process of its own, and one process at a time
computes. A program that is not installed is skipped with the reason. `--allocator` gives all programs the allocator setting
that `gptkit train` uses; without it, only gptkit has it. `--check-loss` trains gptkit and nanoGPT in fp32 from equal weights
on equal data instead, and compares their losses.

"share of products" is the rate of a step's matrix products, divided by the rate of single large bf16 products. Products are
counted as 6 per weight of a matrix and token, and 6 · context · width per layer and token for causal attention.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.interleave import environment
from gptkit.components.optimizer.adamw import AdamWSpec
from gptkit.model.gpt import GPT
from gptkit.training.allocator import keep_freed_memory
from gptkit.training.step import TrainingStep


@dataclass(frozen=True)
class Row:
    """One row of the table: a GPT-2 shape and a batch."""

    label: str
    n_layers: int
    d_model: int
    n_heads: int
    vocab: int
    context: int
    batch: int
    dropout: float = 0.0
    target: float = 1.0
    """Intended speed in multiples of nanoGPT's."""

    @property
    def tokens(self) -> int:
        return self.batch * self.context

    @property
    def operations(self) -> int:
        """Operations of a token in the products of a step."""
        weights = 12 * self.n_layers * self.d_model**2 + self.vocab * self.d_model
        return 6 * weights + 6 * self.n_layers * self.context * self.d_model

    def spec(self) -> dict[str, Any]:
        """The model's spec for gptkit, equal to nanoGPT's model."""
        return {
            "context_length": self.context,
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            "vocab_size": self.vocab,
            "embedding": {"name": "token", "dropout": self.dropout},
            "position": "learned",
            "attention": {
                "name": "multi-head",
                "n_heads": self.n_heads,
                "qkv_bias": True,
                "output_bias": True,
                "dropout": self.dropout,
            },
            "norm": "layer",
            "feedforward": {"name": "mlp", "activation": "gelu", "bias": True},
            "block": {"name": "pre-norm", "dropout": self.dropout},
            "head": {"name": "linear", "tied": True},
        }


ROWS = {
    "124M-1024": Row("124M, context 1024, batch 2", 12, 768, 12, 50257, 1024, 2, target=2.0),
    "124M-256": Row("124M, context 256, batch 4", 12, 768, 12, 50257, 256, 4, target=2.0),
    "vocab-50257": Row("6 × 384, vocab 50257, context 256, batch 16", 6, 384, 6, 50257, 256, 16, target=2.5),
    "vocab-65": Row("6 × 384, vocab 65, context 256, batch 16", 6, 384, 6, 65, 256, 16, target=1.3),
    "dropout": Row("the same, dropout 0.2", 6, 384, 6, 65, 256, 16, dropout=0.2, target=1.8),
}
PROGRAMS = ("nanogpt", "transformers", "litgpt", "gptkit")
Step = Callable[[Tensor, Tensor], Tensor]
"""Take one training step on token ids and targets; return the loss."""

OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.95), "weight_decay": 0.1}


def gptkit_step(row: Row, precision: torch.dtype, rate: float) -> tuple[nn.Module, Step]:
    """gptkit's training step."""
    model = GPT(row.spec()).train()
    optimizer = AdamWSpec(learning_rate=rate, **OPTIMIZER).build(model)
    step = TrainingStep(model, optimizer, device=torch.device("cpu"), precision=precision, clip=1.0)
    return model, lambda ids, targets: step((ids, targets, None), lambda: None)[0]


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[Tensor, Tensor], Tensor], precision: torch.dtype
) -> Step:
    """The training step of the other programs, as in their training scripts."""

    def step(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            loss = loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def nanogpt_step(row: Row, precision: torch.dtype, rate: float, directory: str | None) -> tuple[nn.Module, Step]:
    """nanoGPT's model and optimizer."""
    if directory is None:
        raise ImportError("--nanogpt is not given")
    sys.path.insert(0, directory)
    module = importlib.import_module("model")
    config = module.GPTConfig(
        block_size=row.context,
        vocab_size=row.vocab,
        n_layer=row.n_layers,
        n_head=row.n_heads,
        n_embd=row.d_model,
        dropout=row.dropout,
        bias=True,
    )
    model: Any = module.GPT(config).train()
    optimizer = model.configure_optimizers(OPTIMIZER["weight_decay"], rate, OPTIMIZER["betas"], "cpu")
    return model, plain_step(model, optimizer, lambda ids, targets: model(ids, targets)[1], precision)


def transformers_step(row: Row, precision: torch.dtype, rate: float) -> tuple[nn.Module, Step]:
    """transformers' GPT-2 with the optimizer of its Trainer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=row.vocab,
        n_positions=row.context,
        n_embd=row.d_model,
        n_layer=row.n_layers,
        n_head=row.n_heads,
        resid_pdrop=row.dropout,
        embd_pdrop=row.dropout,
        attn_pdrop=row.dropout,
        use_cache=False,
    )
    model: Any = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True, **OPTIMIZER)

    def loss_of(ids: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = model(ids).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return model, plain_step(model, optimizer, loss_of, precision)


def litgpt_step(row: Row, precision: torch.dtype, rate: float) -> tuple[nn.Module, Step]:
    """litgpt's model of this shape (rotary positions) with the loss of its pretraining."""
    litgpt = importlib.import_module("litgpt")
    if row.dropout:
        raise ImportError("its model has no dropout")
    config = litgpt.Config(
        block_size=row.context,
        n_layer=row.n_layers,
        n_embd=row.d_model,
        n_head=row.n_heads,
        vocab_size=row.vocab,
        padded_vocab_size=row.vocab,
        parallel_residual=False,
        rotary_percentage=1.0,
        bias=True,
        attn_bias=True,
    )
    model: Any = litgpt.GPT(config).train()
    model.lm_head.weight = model.transformer.wte.weight
    loss_function = importlib.import_module("litgpt.utils").chunked_cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, **OPTIMIZER)

    def loss_of(ids: Tensor, targets: Tensor) -> Tensor:
        result: Tensor = loss_function(model(ids), targets, chunk_size=0)
        return result

    return model, plain_step(model, optimizer, loss_of, precision)


def build(program: str, row: Row, precision: torch.dtype, nanogpt: str | None, rate: float = 3e-4) -> tuple[nn.Module, Step]:
    """Return a program's model and step.

    Raises:
        ImportError: the program is not installed, or cannot train the shape.
    """
    if program == "nanogpt":
        return nanogpt_step(row, precision, rate, nanogpt)
    return {"gptkit": gptkit_step, "transformers": transformers_step, "litgpt": litgpt_step}[program](row, precision, rate)


def serve(options: argparse.Namespace) -> None:
    """Measure whenever a line arrives, until the input ends."""
    import resource

    out = os.dup(1)
    os.dup2(2, 1)  # libraries print

    def answer(**fields: Any) -> None:
        os.write(out, (json.dumps(fields) + "\n").encode())

    torch.manual_seed(0)
    program, name = options.worker
    if options.allocator or program == "gptkit":
        keep_freed_memory()
    row, precision = ROWS[name], torch.bfloat16 if options.precision == "bf16" else torch.float32
    try:
        _, step = build(program, row, precision, options.nanogpt)
    except ImportError as error:
        answer(skipped=str(error))
        return
    ids = torch.randint(row.vocab, (row.batch, row.context))
    targets = ids.roll(-1, 1)
    for _ in range(2):
        step(ids, targets)
    answer(ready=True)
    for line in sys.stdin:
        n_steps = int(line)
        began = time.perf_counter()
        for _ in range(n_steps):
            step(ids, targets)
        seconds = (time.perf_counter() - began) / n_steps
        answer(seconds=seconds, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def product_rate() -> float:
    """Return the rate of large bf16 products in operations per second: the best of several shapes and repetitions."""
    best = 0.0
    for rows, inner, columns in ((2048, 768, 3072), (4096, 384, 1536), (2048, 2048, 2048)):
        a, b = torch.randn(rows, inner).bfloat16(), torch.randn(columns, inner).bfloat16()
        for _ in range(20):
            began = time.perf_counter()
            nn.functional.linear(a, b)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - began))
    return best


def measure(name: str, options: argparse.Namespace, peak: float) -> list[str]:
    """Measure one row of the table and return its lines."""
    row = ROWS[name]
    workers: dict[str, subprocess.Popen[str]] = {}
    for program in options.programs:
        command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--worker", program, name]
        own = program == "gptkit"
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert worker.stdout is not None
        line = worker.stdout.readline()
        state: dict[str, Any] = json.loads(line) if line else {"skipped": "it ended with an error"}
        if "skipped" in state:
            print(f"{row.label}: {program} skipped, {state['skipped']}", file=sys.stderr)
            if own:
                raise SystemExit(f"gptkit cannot be measured: {state['skipped']}")
            continue
        workers[program] = worker
    seconds: dict[str, list[float]] = {program: [] for program in workers}
    memory: dict[str, float] = {}
    for number in range(options.rounds):
        for program in list(workers) if number % 2 == 0 else reversed(workers):
            worker = workers[program]
            assert worker.stdin is not None
            assert worker.stdout is not None
            print(options.steps, file=worker.stdin, flush=True)
            state = json.loads(worker.stdout.readline())
            seconds[program].append(state["seconds"])
            memory[program] = state["memory"]
    for worker in workers.values():
        worker.communicate()
    base = options.programs[0] if options.programs[0] in seconds else next(iter(seconds))
    lines = []
    for program, times in seconds.items():
        ratios = sorted(reference / mine for reference, mine in zip(seconds[base], times, strict=True))
        rate = row.tokens / statistics.median(times)
        share = rate * row.operations / peak
        lines.append(
            f"| {row.label} | {program} | {rate:,.0f} | {share:.0%} | {memory[program] / 1e6:,.0f} MB "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) | {memory[program] / memory[base]:.2f} |"
        )
    return lines


def check_loss(options: argparse.Namespace) -> None:
    """Train gptkit and nanoGPT in fp32 from equal weights on equal data, and compare the losses of all steps.

    Raises:
        SystemExit: the losses differ by more than 1e-4.
    """
    row = Row("6 × 384, vocab 256", 6, 384, 6, 256, 64, 4)
    torch.manual_seed(0)
    model, step = build("gptkit", row, torch.float32, None)
    other, other_step = build("nanogpt", row, torch.float32, options.nanogpt)
    copy_to_nanogpt(model, other)
    from pydoc_data.topics import topics

    text = torch.frombuffer(bytearray("".join(topics.values()).encode()), dtype=torch.uint8).long()
    largest, loss = 0.0, math.nan
    for number in range(options.loss_steps):
        starts = torch.randint(len(text) - row.context - 1, (row.batch,))
        windows = torch.stack([text[start : start + row.context + 1] for start in starts.tolist()])
        ids, targets = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
        loss = float(step(ids, targets))
        difference = abs(loss - float(other_step(ids, targets)))
        largest = max(largest, difference)
        if number % 20 == 0:
            print(f"step {number}: loss {loss:.5f}, difference {difference:.1e}")
    print(f"after {options.loss_steps} steps: loss {loss:.5f}, largest difference {largest:.1e}")
    if not largest <= 1e-4:
        raise SystemExit("the losses differ by more than 1e-4")


NANOGPT_NAMES = {
    "embedding.table.": "transformer.wte.",
    "embedding.position.table.": "transformer.wpe.",
    "final_norm.": "transformer.ln_f.",
    "blocks.": "transformer.h.",
    ".attention_norm.": ".ln_1.",
    ".feedforward_norm.": ".ln_2.",
    ".attention.qkv.": ".attn.c_attn.",
    ".attention.output.": ".attn.c_proj.",
    ".feedforward.up.": ".mlp.c_fc.",
    ".feedforward.down.": ".mlp.c_proj.",
}


@torch.no_grad()
def copy_to_nanogpt(model: nn.Module, other: nn.Module) -> None:
    """Copy gptkit's weights to nanoGPT's model."""
    parameters = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        renamed = name
        for own, their in NANOGPT_NAMES.items():
            if own.startswith(".") or renamed.startswith(own):
                renamed = renamed.replace(own, their)
        parameters.pop(renamed).copy_(parameter)
    assert not parameters, sorted(parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", metavar="DIR", help="directory with nanoGPT's model.py")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--programs", nargs="*", choices=PROGRAMS, default=list(PROGRAMS), help="the first is the reference")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="training steps per measurement")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--allocator", action="store_true", help="give all programs gptkit's allocator setting")
    parser.add_argument("--check-loss", action="store_true", help="compare losses with nanoGPT's instead of speeds")
    parser.add_argument("--loss-steps", type=int, default=200)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options)
        return
    if options.check_loss:
        check_loss(options)
        return
    print(environment("transformers"))
    peak = product_rate()
    print(f"bf16 products: {peak / 1e9:.0f} GFLOP/s; {options.rounds} rounds of {options.steps} steps, {options.precision}")
    print("\n| | program | tokens/s | share of products | peak memory | times as fast (range) | memory ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in options.rows:
        print("\n".join(measure(name, options, peak)), flush=True)


if __name__ == "__main__":
    main()
