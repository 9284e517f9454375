"""Measure what pages show from stored files, and write these files: ``python -m gptkit.docs.remeasure``.

It takes about ten minutes. Run it when attentions, positions, or the modules of measured components change; the tests fail
when a stored number differs from the measured one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptkit.core.atomic import write_text
from gptkit.core.registry import Registry, default_registry

__all__ = ["main"]


def main(names: Sequence[str] = ()) -> None:
    """Write the sizes of components and the outcomes of pairs of attention and position.

    Args:
        names: ``sizes`` or ``combinations``, to write one of both.
    """
    from gptkit.docs.combinations import stored
    from gptkit.docs.sizes import expressions

    for name, module in (("sizes", expressions), ("combinations", stored)):
        if not names or name in names:
            _write(module.STORED, module.stored_data)


def _write(file: Path, measure: Callable[[Registry], Any]) -> None:
    data = measure(default_registry())
    lines = [f"{json.dumps(name)}: {json.dumps(each, ensure_ascii=False)}" for name, each in data.items()]
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
