"""The presets: commented spec files that are included in gptkit and in plugins."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gptkit.core.errors import CollisionError, GptkitError
from gptkit.core.registry import DISABLE, Plugin, Registry, default_registry
from gptkit.core.suggestions import did_you_mean

__all__ = ["Preset", "family", "find", "groups", "presets", "shipped", "summary"]

_log = logging.getLogger("gptkit")
_DIRECTORIES = {"to start from": ".", "to fine-tune with (train --init)": "finetuning", "released models": "families"}
_SUFFIXES = (".yaml", ".yml")
_FAMILY = "# family: "


@dataclass(frozen=True)
class Preset:
    """A spec file.

    Attributes:
        name: the name, accepted by `gptkit new --from`, `extends` and every command that takes a spec.
        path: the file.
        plugin: the plugin that ships it; None for gptkit.
    """

    name: str
    path: Path
    plugin: Plugin | None = None


def groups(registry: Registry | None = None) -> dict[str, dict[str, Path]]:
    """Return the presets by their group, then by name: gptkit's by their purpose, then those of each plugin.

    Args:
        registry: the registry of the plugins; by default, that of the installed ones.
    """
    result = _built_in()
    for preset in presets(registry).values():
        if preset.plugin is not None:
            result.setdefault(f"from {preset.plugin.provenance}", {})[preset.name] = preset.path
    return result


def presets(registry: Registry | None = None) -> dict[str, Preset]:
    """Return the presets by name, gptkit's first. A name that two plugins register is omitted."""
    known = {name: Preset(name, path) for group in _built_in().values() for name, path in group.items()}
    for name, claimants in _of_plugins(registry).items():
        if name in known:
            for preset in claimants:
                _warn(preset.plugin, f"preset {name!r} has the name of a built-in one, and is skipped")
        elif len(claimants) == 1:
            known[name] = claimants[0]
    return known


def shipped(registry: Registry | None = None) -> dict[str, Path]:
    """Return the files of the presets by name."""
    return {name: preset.path for name, preset in presets(registry).items()}


def find(name: str, registry: Registry | None = None) -> Path:
    """Return the file of a preset.

    Raises:
        CollisionError: two plugins ship a preset of that name.
        GptkitError: the name is unknown; the message suggests the closest.
    """
    known = shipped(registry)
    if name in known:
        return known[name]
    claimants = [preset.plugin.provenance for preset in _of_plugins(registry).get(name, ()) if preset.plugin]
    if len(claimants) > 1:
        switch = f"{DISABLE}={claimants[-1].partition('==')[0]}"
        both = " and ".join(claimants)
        raise CollisionError(f"preset {name!r} is shipped by {both}; uninstall one, or switch one off with {switch}")
    raise GptkitError(f"unknown preset {name!r}; {did_you_mean(name, list(known), label='available')}")


def summary(path: Path) -> str:
    """Return the description of a preset, from its first line: ``# NAME: description``."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().lstrip("# ").partition(": ")[2].strip()


def family(path: Path) -> str | None:
    """Return the family of a preset's model, from a line ``# family: NAME`` of its first comment; None without one."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("#"):
                return None
            if line.startswith(_FAMILY):
                return line.removeprefix(_FAMILY).strip()
    return None


def _built_in() -> dict[str, dict[str, Path]]:
    directory = Path(str(files("gptkit"))) / "presets"
    return {
        group: {path.stem: path for path in sorted((directory / below).glob("*.yaml"), key=lambda path: path.stem)}
        for group, below in _DIRECTORIES.items()
    }


def _of_plugins(registry: Registry | None) -> dict[str, list[Preset]]:
    result: dict[str, list[Preset]] = {}
    for plugin, returned in (registry or default_registry()).call("gptkit_presets"):
        own = {path.stem: Preset(path.stem, path, plugin) for path in _files(plugin, returned)}
        for name, preset in own.items():
            result.setdefault(name, []).append(preset)
    return result


def _files(plugin: Plugin, returned: Any) -> Iterator[Path]:
    if isinstance(returned, (str, Path)) or not isinstance(returned, Iterable):
        returned = [returned]
    for entry in returned:
        path = Path(entry) if isinstance(entry, (str, Path)) else None
        if path is not None and path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        elif path is not None and path.is_file() and path.suffix in _SUFFIXES:
            yield path
        else:
            _warn(plugin, f"gptkit_presets returned {entry!r}, which is not a .yaml file or a directory")


def _warn(plugin: Plugin | None, message: str) -> None:
    _log.warning("%s: %s", "gptkit" if plugin is None else plugin.provenance, message)
