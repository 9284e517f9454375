"""gptkit: compose GPT language models from spec files.

The public names, imported on first use, so that ``import gptkit`` costs nothing::

    import gptkit

    model = gptkit.build("tiny.yaml")            # a spec file becomes a torch module
    run = gptkit.train("tiny.yaml", "runs/tiny")  # … and is trained
    run = gptkit.load("runs/tiny")
    print(run.generate("Once"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptkit.errors import GptkitError as GptkitError
    from gptkit.errors import SpecError as SpecError
    from gptkit.hookspecs import hookimpl as hookimpl

_WHERE = {
    "GptkitError": "gptkit.errors",
    "SpecError": "gptkit.errors",
    "hookimpl": "gptkit.hookspecs",
}

__all__ = list(_WHERE)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gptkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
