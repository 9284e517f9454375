"""The specs that come with gptkit: small files to start from, each explained line by line in its comments."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from gptkit.errors import GptkitError

__all__ = ["find", "shipped", "summary"]


def shipped() -> dict[str, Path]:
    """The shipped specs by name, sorted."""
    folder = Path(str(files("gptkit"))) / "specs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a shipped spec.

    Raises:
        GptkitError: there is none of that name; says what there is.
    """
    known = shipped()
    if name not in known:
        from gptkit.registry import did_you_mean

        raise GptkitError(f"no spec {name!r} is shipped; {did_you_mean(name, list(known), label='there are')}")
    return known[name]


def summary(path: Path) -> str:
    """What a shipped spec says of itself in its first line: ``# tiny: learns English in three minutes``."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").partition(": ")[2].strip()
