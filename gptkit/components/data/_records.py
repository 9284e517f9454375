"""Remedies for JSON files whose lines are not the objects that are read."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["REMEDY", "array_remedy", "remedy"]

_DEEPEST = 8
"""Texts below more objects are not searched for."""

REMEDY = "Correct the line, or set `skip_bad_lines: true` to skip all such lines."


def remedy(path: Path, line: bytes, value: dict[str, Any] | None, names: dict[str, str]) -> str:
    """Return the remedy for the first line with text of a file, which shows whether all others are wrong, too.

    Args:
        path: the file.
        line: the line.
        value: its object, if it has one.
        names: the fields that are read from it, by the names of the settings.
    """
    if value is not None:
        fields = [name for setting, name in names.items() if setting != "messages_field"]
        nested = next(filter(None, (_nested(value, name) for name in fields)), None)
        if nested is not None:
            return _with_jq(nested, path)
        missing = next((setting for setting, name in names.items() if name not in value), None)
        if missing is None:
            return REMEDY
        if missing == "field" and (field := _conversation(value)) is not None:
            return f"Set `messages_field: {field}` to read conversations. " + REMEDY
        if missing == "field" and (items := _items(value)) is not None:
            key, item = items
            return _with_jq(f".{_key(key)}[]" + (f" | {{{_key(names['field'])}: .}}" if isinstance(item, str) else ""), path)
        if missing == "field" and (
            parts := next((parts for parts in _PROMPTS if all(name in value for name in parts)), None)
        ):
            prompt, answer = ", ".join(f".{name}" for name in parts[:-1]), parts[-1]
            joined = f'. + {{prompt: ([{prompt}] | map(select(. != null and . != "")) | join("\\n"))}}'
            return f"Set `prompt_field: prompt` and `field: {answer}`. {_with_jq(joined, path)}"
        if missing == "field" and (pair := next((pair for pair in _PAIRS if all(name in value for name in pair)), None)):
            return (
                f"Set `prompt_field: {pair[0]}` and `field: {pair[1]}` to learn the second from the first; or set "
                f"`field` to the name of a field of the file. {REMEDY}"
            )
        return f"Set `{missing}` to the name of a field of the file. " + REMEDY
    if line.strip() in (b"{", b"["):
        return _with_jq(".", path)
    if line.lstrip().startswith(b'"'):
        return _with_jq(f"{{{_key(next(iter(names.values())))}: .}}", path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return (
            "The file is a table: write its column of texts as JSON Lines, with Python's csv.DictReader and json.dumps, "
            "or read it as plain text, with data.name `text`."
        )
    if line.lstrip().startswith(b"{"):
        return _with_jq(".", path) if _begins_with_object(line) else REMEDY
    return "If the file is not JSON Lines, set data.name to `text` to read it as plain text. " + REMEDY


_PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "chosen"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("input", "target"),
    ("source", "target"),
)
"""Fields of a prompt and its answer in the corpora of others."""


_PROMPTS = (
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("context", "question", "answer"),
)
"""Fields of a prompt in two parts and its answer in the corpora of others; each part may be empty."""


def _begins_with_object(line: bytes) -> bool:
    """Return whether a line has another object after its first one."""
    text = line.decode(errors="replace").lstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip().startswith("{")


def _items(value: dict[str, Any]) -> tuple[str, Any] | None:
    """Return the field of an object that has a list of the documents, and its first one; None if another may be meant."""
    if any(isinstance(item, str) for item in value.values()):
        return None
    lists = {name: item for name, item in value.items() if isinstance(item, list) and item}
    name = next((name for name, item in lists.items() if isinstance(item[0], (dict, str))), None)
    return None if name is None else (name, lists[name][0])


def _conversation(value: dict[str, Any]) -> str | None:
    """Return the field of an object that has a conversation; None without one."""
    for name, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict) and ("role" in item[0] or "from" in item[0]):
            return name
    return "messages" if isinstance(value.get("messages"), list) else None


def _with_jq(program: str, path: Path) -> str:
    """Return the remedy for a file of JSON in another form: the command that writes an object per line."""
    name = path.name.removesuffix(path.suffix) if path.suffix.lower() in _READ_BY else path.name
    target = path.with_name(f"lines-{name}")
    read = f"{_READ_BY[path.suffix.lower()]} {shlex.quote(str(path))} | " if name != path.name else ""
    source = "" if read else f" {shlex.quote(str(path))}"
    command = f"{read}jq -c {shlex.quote(program)}{source} > {shlex.quote(str(target))}"
    return f"Convert it, and read the new file in its place: {command}"


_READ_BY = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
"""Commands that write the content of a compressed file."""


def array_remedy(path: Path, begin: bytes, field: str) -> str:
    """Return the remedy for a file that is an array, or has an array on each line.

    Args:
        path: the file.
        begin: the beginning of the first item.
        field: the field that is read from each line.
    """
    return _with_jq(f".[] | {{{_key(field)}: .}}" if begin.startswith(b'"') else ".[]", path)


def _nested(value: dict[str, Any], name: str) -> str | None:
    """Return the jq program that adds a field with a text that the object has further inside; None without one."""
    here = value.get(name)
    if isinstance(here, str):
        return None
    if isinstance(here, list) and here and all(isinstance(item, str) for item in here):
        return f'. + {{{_key(name)}: (.{_key(name)} | join("\\n"))}}'
    inside = here if isinstance(here, dict) else value if name not in value else {}
    start = (name,) if isinstance(here, dict) else ()
    paths = [(start + keys, text) for keys, text in _texts(inside)]
    named = [keys for keys, _ in paths if ".".join(keys) == name or (len(keys) > 1 and keys[-1] == name)]
    if not named and any(len(keys) == 1 for keys, _ in paths):
        return None  # another field of the object may be meant
    chosen = named[0] if named else max(paths, key=lambda each: len(each[1]), default=((), ""))[0]
    if len(chosen) < 2:
        return None
    added = f"{{{_key(name)}: {''.join(f'.{_key(key)}' for key in chosen)}}}"
    return f". + {added}" if name in value else f"{added} + ."  # other lines may have the field


def _texts(value: dict[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the texts in an object and in the objects inside it, with their keys."""
    for key, item in value.items():
        if isinstance(item, str):
            yield (*keys, key), item
        elif isinstance(item, dict) and len(keys) < _DEEPEST:
            yield from _texts(item, (*keys, key))


def _key(name: str) -> str:
    """Return a key as jq reads it after a period and in an object."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else json.dumps(name, ensure_ascii=False)
