"""Command line of the harness, extended by gptkit runs."""

from __future__ import annotations

import sys

from gptkit.core.errors import GptkitError

__all__ = ["main"]


def main() -> None:
    """Run ``lm-eval`` with the model ``gptkit`` registered."""
    from lm_eval.__main__ import cli_evaluate

    import gptkit_lm_eval.model  # noqa: F401  (registers it)

    try:
        cli_evaluate()
    except GptkitError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
