"""The built-in families and formats, registered through the same hook as a plugin's.

Every family that a module of `gptkit.interop.families` defines is registered, and every format that a module `format` of a
package in `gptkit.interop.formats` defines, both lazily: a new one is a new file.
"""

from __future__ import annotations

from pathlib import Path

from gptkit.core.hooks import hookimpl
from gptkit.core.lazy import LazyComponent, declared_in


@hookimpl
def gptkit_components() -> list[LazyComponent]:
    interop = Path(__file__).parent
    families = sorted((interop / "families").glob("*.py"))
    # The other modules of a format import torch, and are imported when a file is read or written.
    formats = sorted((interop / "formats").glob("*/format.py"))
    return [
        *(lazy for path in families for lazy in declared_in(path, f"gptkit.interop.families.{path.stem}", "family")),
        *(
            lazy
            for path in formats
            for lazy in declared_in(path, f"gptkit.interop.formats.{path.parent.name}.format", "format")
        ),
    ]
