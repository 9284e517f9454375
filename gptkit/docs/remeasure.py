"""Measure what pages show from stored files, and write these files: ``python -m gptkit.docs.remeasure``.

It takes about ten minutes. Run it when attentions, positions, the modules of measured components or conformance checks
change; the tests fail when what is stored differs from what is measured. ``sizes conformance``, without combinations, is
enough when other components change: their pages are correct without it, but take longer to build. Of sizes and conformance
checks, those of components whose sources have changed are measured; ``--again`` measures the sizes of all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptkit.core.atomic import write_text
from gptkit.core.registry import Registry, default_registry

__all__ = ["main"]


def main(names: Sequence[str] = (), *, again: bool = False) -> None:
    """Write the sizes of components, the outcomes of pairs of attention and position, and those of the conformance checks.

    Args:
        names: ``sizes``, ``combinations`` or ``conformance``, to write some of them.
        again: measure the sizes of components whose sources have not changed, too.
    """
    from gptkit.docs.checked import checked
    from gptkit.docs.combinations import stored as pairs
    from gptkit.docs.outcomes import stored as outcomes
    from gptkit.docs.sizes import expressions

    def conformance(registry: Registry) -> dict[str, Any]:
        # Outcomes in the user's cache, which are those of the same sources, are not measured again.
        return outcomes.stored_data(registry, checked(registry, stored=False))

    files: dict[str, tuple[Path, Callable[[Registry], Any]]] = {
        "sizes": (expressions.STORED, expressions.stored_data if again else expressions.refreshed_data),
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
    parser = argparse.ArgumentParser(description="Measure what pages show from stored files.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sizes, combinations or conformance; by default all")
    parser.add_argument("--again", action="store_true", help="measure sizes of components that have not changed, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {"sizes", "combinations", "conformance"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    main(arguments.names, again=arguments.again)
