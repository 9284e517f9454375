"""Placeholder for torch's compiler, for commands that only run a model on the meta device."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from gptkit.cli.collection import import_torch

__all__ = ["without_compiler"]

_NAME = "torch._dynamo"


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Run the block without importing `torch._dynamo`, unless it uses an attribute other than `disable`.

    torch implements many operations of the meta device in Python and exempts these functions from compilation, which
    imports the compiler: more than a second, for a command that compiles nothing. Within the block they are not exempted;
    afterwards the original state is restored.
    """
    import_torch()
    import torch

    if _NAME in sys.modules:
        yield
        return
    stub = _Stub(_NAME)
    sys.modules[_NAME] = stub
    torch.__dict__["_dynamo"] = stub
    try:
        yield
    finally:
        stub.remove()


class _Stub(ModuleType):
    """Placeholder for `torch._dynamo`; any attribute but `disable` and `graph_break` imports the real module."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._functions: list[Callable[..., Any]] = []

    def disable(self, fn: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
        self._functions.append(fn)
        return fn

    def graph_break(self, msg: str = "") -> None:
        """Do nothing: optimizers call it in every step, and nothing is being compiled."""

    def remove(self) -> None:
        import torch

        for fn in self._functions:
            vars(fn).pop("__dynamo_disable", None)  # where torch keeps what `disable` returned
        self._functions.clear()
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
            torch.__dict__.pop("_dynamo", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # `inspect` reads them of all modules
            raise AttributeError(name)
        self.remove()
        return getattr(importlib.import_module(_NAME), name)
