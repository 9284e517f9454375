"""Plugin interface: the hooks that a distribution can implement.

A plugin is a module (or object) named by an entry point of the group ``gptkit``::

    [project.entry-points.gptkit]
    my-plugin = "my_package.plugin"

and marks its functions with ``gptkit.hookimpl``. An implementation declares only the arguments that it uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from gptkit.core.component import Component
    from gptkit.core.lazy import LazyComponent
    from gptkit.kinds.tracker import Tracker, TrainingStart

PROJECT = "gptkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def gptkit_components() -> Iterable[type[Component] | LazyComponent]:  # type: ignore[empty-body]
    """Return the spec classes of the components that this plugin adds, or lazy references to them.

    Called once, when the registry is first used. Every class must be concrete, of a registered kind, with a
    ``name: Literal["..."]`` that no other component of the kind has. A `gptkit.LazyComponent` in place of a class is
    imported when the component is first looked up.
    """


@hookspec
def gptkit_trackers(start: TrainingStart) -> Iterable[Tracker]:  # type: ignore[empty-body]
    """Return trackers of a training, in addition to those of its spec.

    Called when a training starts or resumes, in the order in which plugins are loaded (by distribution). Trackers are
    isolated: an exception is reported and disables only that tracker.

    Args:
        start: the run directory, the number of steps, and the resolved spec.
    """


@hookspec
def gptkit_kinds() -> Iterable[type[Component]]:  # type: ignore[empty-body]
    """Return the abstract base classes of the kinds that this plugin adds.

    Called before any `gptkit_components`, so that a plugin can add a kind and others can add components of it.
    """


@hookspec
def gptkit_presets() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the presets of this plugin: paths of spec files (.yaml), or of directories that contain them.

    A preset has the name of its file without the suffix. Its first line, ``# name: description``, is shown in lists.
    Called when presets are listed or one is looked up.
    """
