"""Comparison of two running times on a noisy machine: A B A B in one process, medians of the ratios."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["Comparison", "compare", "environment"]


@dataclass(frozen=True)
class Comparison:
    """Running times of A and B in seconds, and their ratio within rounds.

    Attributes:
        ratio: median of B's time / A's time: above 1 if A is faster.
        low, high: quartiles of that ratio.
        discarded: rounds excluded because other processes used the CPU.
    """

    seconds_a: float
    seconds_b: float
    ratio: float
    low: float
    high: float
    rounds: int
    discarded: int


def compare(a: Callable[[], object], b: Callable[[], object], *, rounds: int = 15, warmup: int = 2) -> Comparison:
    """Run A and B alternately, in alternating order, and compare them within each round."""
    for _ in range(warmup):
        a(), b()
    kept: list[tuple[float, float]] = []
    discarded = 0
    while len(kept) < rounds and discarded <= 2 * rounds:
        order = (a, b) if len(kept) % 2 == 0 else (b, a)
        before = _others()
        began = time.perf_counter()
        first = _timed(order[0])
        second = _timed(order[1])
        elapsed = time.perf_counter() - began
        # Discard the round if other processes used more than a tenth of one core.
        if (_others() - before) > 0.1 * elapsed + 0.02:
            discarded += 1
            continue
        kept.append((first, second) if order[0] is a else (second, first))
    if len(kept) < 4:
        raise SystemExit(
            "too few undisturbed rounds, since other processes used the CPU; run the benchmark on an idle machine"
        )
    ratios = sorted(two / one for one, two in kept)
    quarter = statistics.quantiles(ratios, n=4)
    return Comparison(
        statistics.median(one for one, _ in kept),
        statistics.median(two for _, two in kept),
        statistics.median(ratios),
        quarter[0],
        quarter[2],
        len(kept),
        discarded,
    )


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _others() -> float:
    """Return the CPU seconds used by other processes so far; 0 if the system does not report them."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0
    busy = sum(int(field) for field in first.split()[1:4]) / os.sysconf("SC_CLK_TCK")
    mine = os.times()
    return busy - mine.user - mine.system


def environment(*packages: str) -> str:
    """Return versions, threads and CPU model on one line."""
    named = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"Python {platform.python_version()}, {named}; {torch.get_num_threads()} threads; {model}"
