"""Entry point of the built-in components.

Every component that a file ``gptkit/components/<kind>/<file>.py`` defines is registered, lazily: a new file is enough.
Runtime modules in ``gptkit/components/<kind>/modules/`` are imported only when a component is built.

Engines are in a room of their own, since they import the models that components are parts of.
"""

from __future__ import annotations

from pathlib import Path

from gptkit.core.hooks import hookimpl
from gptkit.core.lazy import LazyComponent, declared_in


@hookimpl
def gptkit_components() -> list[LazyComponent]:
    components: list[LazyComponent] = []
    for path in sorted(Path(__file__).parent.glob("*/*.py")):
        directory = path.parent.name
        components += declared_in(path, f"gptkit.components.{directory}.{path.stem}", kind=directory.replace("_", "-"))
    for path in sorted((Path(__file__).parent.parent / "engines").glob("*.py")):
        components += declared_in(path, f"gptkit.engines.{path.stem}", kind="engine")
    return components
