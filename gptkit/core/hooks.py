"""Plugin interface: every hook that a distribution can implement, and its contract.

A plugin is a module (or object) named by an entry point of the group ``gptkit``::

    [project.entry-points.gptkit]
    my-plugin = "my_package.plugin"

and marks its functions with ``gptkit.hookimpl``. Hooks may gain arguments; an implementation names only those it uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from gptkit.core.component import Component
    from gptkit.kinds.tracker import Tracker, TrainingStart

PROJECT = "gptkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def gptkit_components() -> Iterable[type[Component]]:  # type: ignore[empty-body]
    """Return the spec classes of the components that this plugin adds.

    Called once, when the registry is first used. Every class must be concrete, of a registered kind, with a
    ``name: Literal["..."]`` that no other component of the kind has.
    """


@hookspec
def gptkit_trackers(start: TrainingStart) -> Iterable[Tracker]:  # type: ignore[empty-body]
    """Return trackers that watch this training, whether or not its spec names any.

    Called when a training starts or resumes, in the order in which plugins are loaded (by distribution). Each tracker is
    kept apart: an exception is reported, and ends that tracker only. A plugin that implements no such hook costs nothing.

    Args:
        start: the run's directory, the steps to come, and the resolved spec.
    """


@hookspec
def gptkit_kinds() -> Iterable[type[Component]]:  # type: ignore[empty-body]
    """Return the abstract base classes of the kinds that this plugin adds.

    Called before any `gptkit_components`, so that a plugin can add a kind and others can add components of it.
    """


@hookspec
def gptkit_presets() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the presets that this plugin ships: paths of spec files (.yaml), or of directories that hold them.

    A preset's name is that of its file without the suffix. Its first line, ``# name: what it is``, is shown in lists.
    Called when presets are listed or one is looked up.
    """
