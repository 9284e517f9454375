"""Fixtures and settings of all tests."""

from __future__ import annotations

import os

# Tensors here are tiny: threads would only wait for each other, the more so when something else runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
