"""Accuracy of `gptkit plan`: its memory and step time beside measured steps on this machine's CPU.

    python -m benchmarks.plan_accuracy [--steps 5] [--json FILE]

Each case runs in a process of its own, since resident memory is that of a process. Shapes are reduced such that a step takes
seconds on two CPU cores; model, optimizer and precision are those of the presets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["CASES", "measure"]

_SMALL = ("training.grad_accumulation=1", "training.window=256")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tiny": ("tiny", ()),
    "gpt2, 2 × 256": ("gpt2", (*_SMALL, "training.batch_size=2")),
    "book, 2 × 256": ("book", (*_SMALL, "training.batch_size=2")),
    "modern, 2 × 256": ("modern", (*_SMALL, "training.batch_size=2")),
}
"""Preset and overrides by label."""


def measure(preset: str, overrides: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Return planned and measured memory (bytes) and step time (seconds) of a spec on this CPU."""
    from gptkit.training.allocator import keep_freed_memory

    keep_freed_memory()
    import torch

    from gptkit.runs.bench_memory import PeakMemory
    from gptkit.runs.bench_step import StepTrial
    from gptkit.runs.opening import open_spec
    from gptkit.runs.planning import plan_training, precision_on
    from gptkit.runs.planning_devices import find_device

    spec = open_spec(preset, ["training.device=cpu", *overrides]).spec
    vocab_size = spec.model.vocab_size or spec.tokenizer.expected_vocab_size
    assert vocab_size is not None
    plan = plan_training(spec, vocab_size, find_device("cpu", precision_on(spec, "cpu")))
    # A small model first: code of torch that is mapped at its first use is not the model's memory.
    reduced = ("training.batch_size=1", "training.grad_accumulation=1", "training.window=32", "model.n_layers=1")
    small = ["training.device=cpu", *overrides, *reduced]
    warm = StepTrial(open_spec(preset, small).spec, 2048 if spec.model.vocab_size is None else vocab_size)
    warm.step()
    del warm
    memory = PeakMemory(torch.device("cpu"))
    trial = StepTrial(spec, vocab_size)
    seconds = [trial.step() for _ in range(2 + steps)][2:]
    return {
        "planned_bytes": plan.memory.total,
        "peak_bytes": memory.bytes,
        "planned_seconds": plan.step_seconds,
        "seconds": statistics.median(seconds),
        "bound": plan.bound,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each case")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--case", help="measure one case and print it as JSON")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(*CASES[options.case], options.steps)))
        return
    results = {}
    print("| spec | planned GB | peak GB | error | planned s | step s | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for label in CASES:
        command = [sys.executable, "-m", "benchmarks.plan_accuracy", "--case", label, "--steps", str(options.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = results[label] = json.loads(done.stdout.splitlines()[-1])
        cells = [label]
        for planned, actual, unit in (
            (row["planned_bytes"], row["peak_bytes"], 1e9),
            (row["planned_seconds"], row["seconds"], 1),
        ):
            cells += (
                [f"{planned / unit:.3g}", "unknown", ""]
                if actual is None
                else [f"{planned / unit:.3g}", f"{actual / unit:.3g}", f"{planned / actual - 1:+.0%}"]
            )
        print(f"| {' | '.join(cells)} |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
