"""Fixtures and settings of all tests."""

from __future__ import annotations

import os

# Tensors are tiny, so synchronizing threads would take longer than the computation.
os.environ.setdefault("OMP_NUM_THREADS", "1")
