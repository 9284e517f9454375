"""The machine's rate of matrix products, the measure of how well a training uses it."""

from __future__ import annotations

import time
from functools import cache

import torch

__all__ = ["known_product_rate", "product_rate", "synchronize"]

_SIZE = {"cpu": 1024, "mps": 2048, "cuda": 8192}
"""Rows and columns of the measured matrices: large enough for the highest rate, small enough to be fast."""


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measure the rate of large matrix products, in floating-point operations per second.

    Args:
        device: the device.
        dtype: dtype of the matrices.
        seconds: how long to measure, after a warmup.

    Returns:
        2 · n³ / t for n × n matrices, where t is the fastest of the repetitions.
    """
    n = _SIZE.get(device.type, 2048)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(2):
        torch.mm(a, b)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * n**3 / fastest


@cache
def known_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return `product_rate`, which is measured once per process: half a second is longer than a short training takes.

    Args:
        device: the device.
        dtype: dtype of the matrices.
    """
    return product_rate(device, dtype)


def synchronize(device: torch.device) -> None:
    """Wait until a device has completed all of its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
