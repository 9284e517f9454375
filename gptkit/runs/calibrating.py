"""Calibration of a precision on text: of files, or of the corpus that a run was trained on.

Shapes: N windows of T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptkit.core.errors import DataError, GptkitError
from gptkit.core.registry import Registry
from gptkit.data.sharded import Array
from gptkit.kinds.format import Progress
from gptkit.model.calibration import Calibration, calibrate
from gptkit.runs.precisions import PrecisionLike, precision_of, require_original
from gptkit.runs.run import Run
from gptkit.runs.texts import file_tokens

__all__ = ["LEAST_TOKENS", "TOKENS", "calibrate_run", "require_calibrated"]

TOKENS = 8192
"""Number of tokens that a calibration uses by default."""

LEAST_TOKENS = 1024
"""Number of tokens below which a text is refused."""

READ = 64
"""How many times the tokens that are used are read from files, to choose windows from."""

WINDOW = 512
"""Largest number of tokens of a window."""


def calibrate_run(
    run: Run,
    precision: PrecisionLike,
    texts: Sequence[str | Path] | None = None,
    *,
    max_tokens: int = TOKENS,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Calibration:
    """Quantize the matrices of a run's model for the inputs that they have on a text. The run is not changed.

    ::

        calibration = calibrate_run(run, "int4", ["book.txt"])
        quantize_run(run, "runs/gpt-int4", "int4", calibration=calibration)

    Windows of the text are used at even distances.

    Args:
        run: the run, loaded without a precision.
        precision: the precision: its name, its fields, or a spec.
        texts: files; the training split of the run's corpus by default.
        max_tokens: number of tokens that are used.
        progress: receives the number of completed steps, and of all.
        registry: where components are looked up; by default what is installed.

    Raises:
        SpecError: the precision is invalid.
        GptkitError: the weights are already in a precision, or it has no calibration.
        DataError: text is missing or too short.
    """
    chosen = precision_of(precision, registry)
    require_original(run)
    tokens: Array
    if texts is None:
        tokens = run.prepared().train.tokens
    else:
        tokens = np.asarray(file_tokens(run, texts, READ * max_tokens), np.int64)
    if len(tokens) < LEAST_TOKENS:
        raise DataError(
            f"the calibration text has {len(tokens):,} tokens, but needs {LEAST_TOKENS:,}",
            hint="Pass more text: --calibration FILE, repeatable.",
        )
    return calibrate(run.model, chosen, _windows(tokens, max_tokens, min(WINDOW, run.spec.window)), progress=progress)


def require_calibrated(calibration: Calibration | None, precision: object) -> None:
    """Raise an error if a calibration is not one of this precision.

    Raises:
        GptkitError: it is one of another precision.
    """
    if calibration is not None and calibration.precision != precision:
        raise GptkitError("the calibration was made for another precision", hint="Pass the same precision to calibrate_run.")


def _windows(tokens: Array, max_tokens: int, length: int) -> Tensor:
    """Return windows (N, T) at even distances."""
    count = max(1, min(max_tokens, len(tokens)) // length)
    first = np.linspace(0, len(tokens) - length, count).astype(np.int64)
    return torch.from_numpy(np.stack([tokens[at : at + length] for at in first]).astype(np.int64))
