"""Start of a Python process for a test, with one thread and without installed copies of gptkit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "launch"]

ROOT = Path(__file__).parents[2]


def launch(*arguments: str) -> str:
    """Run ``python ARGUMENTS``; return what it printed to stderr, and fail if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stderr
