"""Measure what pages show from stored files, and write these files: ``python -m gptkit.docs.remeasure``.

It takes about ten minutes. Run it when attentions, positions, the modules of measured components or conformance checks
change; the tests fail when what is stored differs from what is measured. ``conformance`` alone, two minutes, is enough when
other components change: their pages are correct without it, but take longer to build.
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
    """Write the sizes of components, the outcomes of pairs of attention and position, and those of the conformance checks.

    Args:
        names: ``sizes``, ``combinations`` or ``conformance``, to write some of them.
    """
    from gptkit.docs.checked import checked
    from gptkit.docs.combinations import stored as pairs
    from gptkit.docs.outcomes import stored as outcomes
    from gptkit.docs.sizes import expressions

    def conformance(registry: Registry) -> dict[str, Any]:
        # Outcomes in the user's cache, which are those of the same sources, are not measured again.
        return outcomes.stored_data(registry, checked(registry, stored=False))

    files: dict[str, tuple[Path, Callable[[Registry], Any]]] = {
        "sizes": (expressions.STORED, expressions.stored_data),
        "combinations": (pairs.STORED, pairs.stored_data),
        "conformance": (outcomes.STORED, conformance),
    }
    for name, (file, measure) in files.items():
        if not names or name in names:
            _write(file, measure)


def _write(file: Path, measure: Callable[[Registry], Any]) -> None:
    data = measure(default_registry())
    lines = [f"{json.dumps(name)}: {json.dumps(each, ensure_ascii=False)}" for name, each in data.items()]
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
