"""The specs that come with gptkit: small files to start from, and released models to build on, each explained."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from gptkit.core.errors import GptkitError

__all__ = ["find", "groups", "shipped", "summary"]

_FOLDERS = {"to start from": ".", "released models": "families"}


def groups() -> dict[str, dict[str, Path]]:
    """The shipped specs by what they are for, then by name, sorted."""
    folder = Path(str(files("gptkit"))) / "presets"
    return {
        group: {path.stem: path for path in sorted((folder / below).glob("*.yaml"), key=lambda path: path.stem)}
        for group, below in _FOLDERS.items()
    }


def shipped() -> dict[str, Path]:
    """The shipped specs by name, those to start from first."""
    return {name: path for group in groups().values() for name, path in group.items()}


def find(name: str) -> Path:
    """The file of a shipped spec.

    Raises:
        GptkitError: there is none of that name; says what there is.
    """
    known = shipped()
    if name not in known:
        from gptkit.core.suggestions import did_you_mean

        raise GptkitError(f"no spec {name!r} is shipped; {did_you_mean(name, list(known), label='there are')}")
    return known[name]


def summary(path: Path) -> str:
    """What a shipped spec says of itself in its first line: ``# tiny: learns English in three minutes``."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").partition(": ")[2].strip()
