"""The package vllm, which is imported when an engine is built."""

from __future__ import annotations

import importlib
import os
from typing import Any

from gptkit.core.errors import GptkitError

__all__ = ["load_vllm"]

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # steps are computed in this process when the host asks for them
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout has the generated text
    "VLLM_NO_USAGE_STATS": "1",  # nothing is reported over the network
}
"""Settings that vLLM reads from the environment, where the user has set none."""

_MODULES = ("vllm", "vllm.platforms", "vllm.sampling_params")
"""Modules that the engine uses; the package does not import its own."""

_INSTALL = "Install it: pip install 'gptkit-vllm[gpu]' on a machine with a GPU, 'gptkit-vllm[cpu]' on others."


def load_vllm() -> Any:
    """Return the package vllm.

    Raises:
        GptkitError: it is not installed, or cannot be imported; the hint has the command that installs it.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        for module in _MODULES:
            importlib.import_module(module)
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise GptkitError("the engine 'vllm' requires the package vllm, which is not installed", hint=_INSTALL) from None
        raise _broken(error) from error
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> GptkitError:
    hint = f"Its packages do not fit each other or this machine. {_INSTALL} Use a new virtual environment."
    return GptkitError(f"the package vllm cannot be imported: {error}", hint=hint)
