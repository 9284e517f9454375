"""The `requires` of a spec: PEP 508 requirements of installed distributions."""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Sequence

__all__ = ["unmet_requirements"]


def unmet_requirements(requirements: Sequence[str]) -> list[tuple[int, str]]:
    """Return the unmet requirements: the index of each, and a message with the command that installs it."""
    if not requirements:
        return []
    from packaging.requirements import InvalidRequirement, Requirement

    unmet = []
    for index, text in enumerate(requirements):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            unmet.append((index, f"{text!r} is not a valid requirement: {str(error).splitlines()[0]}"))
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append((index, f"{requirement.name} is not installed; run: pip install {shlex.quote(text)}"))
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            needs = f"needs {requirement.name}{requirement.specifier} but {installed} is installed"
            unmet.append((index, f"{needs}; run: pip install {shlex.quote(text)}"))
    return unmet
