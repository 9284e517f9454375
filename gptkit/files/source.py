"""Reading of spec files: bounds, formats, `extends`, and source locations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from gptkit.core.errors import Problem, SpecError
from gptkit.core.suggestions import did_you_mean
from gptkit.files.building import MAX_BYTES, refuse_characters
from gptkit.files.json_text import parse_json
from gptkit.files.nodes import Node, Place, merge_roots
from gptkit.files.overrides import TypesAt, apply_override
from gptkit.files.toml_text import parse_toml
from gptkit.files.yaml_text import parse_yaml

__all__ = ["Source", "read"]

MAX_EXTENDS = 16
_PARSERS = {".yaml": parse_yaml, ".yml": parse_yaml, ".toml": parse_toml, ".json": parse_json}


@dataclass(frozen=True)
class Source:
    """A spec as it was read: the file, merged with the files that it extends and with overrides."""

    path: Path
    """The requested file."""
    root: Node = field(repr=False)
    files: tuple[Path, ...] = ()
    """All files that were read, the requested one first."""
    overridden: tuple[str, ...] = ()
    """The overrides."""

    @cached_property
    def data(self) -> dict[str, Any]:
        """The spec as plain data: mappings, lists, texts, numbers, truth values and None."""
        plain: dict[str, Any] = self.root.plain()
        return plain

    def locate(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        """Return the location of a path: file, line and column, the last two None in an override.

        A scalar is located by its value, a mapping or list by its key, and a missing path by its last existing part.

        Args:
            path: keys and indices from the root.
            key: return the location of the key, also for a scalar.
        """
        node = self.root
        for part in path:
            child = node.child(part)
            if child is None:
                key = False
                break
            node = child
        if node.key is not None and (key or isinstance(node.value, (dict, list))):
            return node.key
        return Place(str(self.path), 1, 1) if node is self.root else node.place

    def order(self, place: Place) -> tuple[int, int, int]:
        """Return a sorting key for locations: this file first, then those that it extends, then the overrides."""
        names = [str(file) for file in self.files]
        names += [f"--set {text}" for text in self.overridden]
        rank = names.index(place.file) if place.file in names else len(names)
        return rank, place.line or 0, place.column or 0


def read(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    shipped: Mapping[str, Path] | None = None,
    types_at: TypesAt | None = None,
) -> Source:
    """Read a spec file, and merge it with the files that it extends and with overrides, without validation.

    Safe for untrusted files: tags and code are not supported, and size, depth, aliases and `extends` are limited.

    Args:
        path: a .yaml, .yml, .toml or .json file, or the name of a shipped spec.
        overrides: ``"model.position=alibi"`` and the like, merged in order; see `gptkit.files.merge` for the rule.
        shipped: specs that may be named in place of a file, here and in ``extends``.
        types_at: returns the types of a spec's fields, so that overrides of texts are read literally.

    Raises:
        SpecError: the file cannot be found or read, or is invalid; lists every error with line and column.
    """
    result = _find(Path(path), shipped or {})
    if result is None:
        if _is_link(Path(path)):
            _stop("is a symbolic link to a file that does not exist", Place(str(path)))
        _stop(f"file not found{_near(Path(path), shipped or {})}", Place(str(path)))
    files: list[Path] = []
    root = _read_chain(result, shipped or {}, files)
    for override in overrides:
        root = apply_override(root, override, types_at)
    return Source(result, root, tuple(files), tuple(overrides))


def _read_chain(path: Path, shipped: Mapping[str, Path], files: list[Path], by: Place | None = None) -> Node:
    """Read a file, merged with the files that it extends."""
    files.append(path)
    root = _read_one(path, by)
    assert isinstance(root.value, dict)
    own = {key: node for key, node in root.value.items() if key not in ("extends", "$schema")}
    extends = root.value.get("extends")
    if extends is None:
        return root.below(own)
    if not isinstance(extends.value, str) or not extends.value.strip():
        _stop("expected the path of one spec file, or the name of a shipped spec", extends.place, ("extends",))
    wanted = path.parent / _expanded(extends.value)
    result = _find(wanted, shipped, extends.value)
    if result is None:
        _stop(f"file {extends.value!r} not found{_near(wanted, shipped, extends.value)}", extends.place, ("extends",))
    if any(_same(result, file) for file in files):
        circle = " → ".join(file.name for file in (*files, result))
        _stop(f"circular: {circle}", extends.place, ("extends",))
    if len(files) >= MAX_EXTENDS:
        _stop(f"more than {MAX_EXTENDS} files extend each other", extends.place, ("extends",))
    return merge_roots(_read_chain(result, shipped, files, extends.place), root.below(own))


def _expanded(written: str) -> Path:
    """Return a path with ``~`` replaced; as written if the system has no such home directory."""
    try:
        return Path(written).expanduser()
    except RuntimeError:
        return Path(written)


def _read_one(path: Path, by: Place | None = None) -> Node:
    """Read a file; `by` is the location of the `extends` that names it."""
    place = Place(str(path))
    parse = _PARSERS.get(path.suffix.lower())
    if path.is_dir():
        _stop_at(path, "is a directory, not a spec file", by)
    if parse is None:
        _stop_at(path, f"a spec file ends in {', '.join(_PARSERS)}", by)
    if not path.is_file():
        _stop_at(path, "is not a regular file", by)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        _stop(f"cannot be read: {error.strerror or type(error).__name__}", place)
    if len(raw) > MAX_BYTES:
        _stop(f"is larger than {MAX_BYTES >> 20} MiB; check that it is a spec file", place)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        _stop("is not UTF-8 text; save it as UTF-8", Place(str(path), line, column))
    refuse_characters(text, str(path))
    return parse(text, str(path))


def _find(path: Path, shipped: Mapping[str, Path], name: str | None = None) -> Path | None:
    """Return the path if it exists, else the shipped spec of the name."""
    try:
        if path.exists():
            return path
    except (OSError, ValueError):
        # A name that no file can have, too long or with a NUL byte.
        return None
    return shipped.get(str(path) if name is None else name)


def _near(path: Path, shipped: Mapping[str, Path], name: str | None = None) -> str:
    """Return a suggestion for a missing file."""
    try:
        existing = sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in _PARSERS)
    except (OSError, ValueError):
        return f": directory {str(path.parent)!r} not found" if str(path.parent) not in ("", ".") else ""
    if not existing and not shipped:
        return f"; directory {str(path.parent)!r} contains no spec file"
    written = path.name if name is None or "/" in name else name
    return f"; {did_you_mean(written, [*existing, *sorted(shipped)], 'spec files here and presets')}"


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _stop_at(path: Path, message: str, by: Place | None) -> NoReturn:
    """Raise an error of a whole file, at the `extends` that names it."""
    if by is None:
        _stop(message, Place(str(path)))
    _stop(f"{path}: {message}", by, ("extends",))


def _stop(message: str, place: Place, path: tuple[str | int, ...] = ()) -> NoReturn:
    raise SpecError([Problem(path, message, *place)])
