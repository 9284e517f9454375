"""Remedies for JSON files in another form: the commands of the hints are executed, and their results read."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from gptkit.components.data.jsonl import JsonLinesDataSpec
from gptkit.components.data.text import TextDataSpec
from gptkit.core.errors import DataError


def _hint(tmp_path: Path, text: str, **fields: Any) -> str:
    (tmp_path / "a b.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(JsonLinesDataSpec(path=("a b.jsonl",), **fields).documents(tmp_path))
    assert caught.value.hint is not None
    return caught.value.hint


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ('["one", "two"]\n', "text", ["one", "two"]),
        ('[\n  "one",\n  "two"\n]\n', "text", ["one", "two"]),
        ('["one"]\n["two"]\n', "body text", ["one", "two"]),
        ('[\n  {"text": "one"}\n]\n', "text", ["one"]),
        ('"one"\n"two"\n', "text", ["one", "two"]),
        ('{"text": ["one", "two"]}\n', "text", ["one\ntwo"]),
        ('{"id": 1, "meta": {"content": "one"}}\n', "text", ["one"]),
        ('{"id": 1, "meta": {"content": "one"}}\n', "meta", ["one"]),
        ('{"id": "a", "meta": {"content": "one", "by": "someone else"}}\n', "meta.content", ["one"]),
        ('{"id": "a", "a b": {"c": {"text": "one"}}}\n', "text", ["one"]),
        ('{"id": 1, "meta": {"content": "one"}}\n{"text": "two", "meta": {"content": "other"}}\n', "text", ["one", "two"]),
        ('{"data": [{"text": "one"}, {"text": "two"}]}\n', "text", ["one", "two"]),
        ('{"version": 1, "a b": ["one", "two"]}\n', "text", ["one", "two"]),
        ('{"text": "one"}{"text": "two"} {"text": "three"}\n', "text", ["one", "two", "three"]),
    ],
)
def test_command_of_the_hint_writes_what_the_spec_reads(tmp_path: Path, text: str, field: str, expected: list[str]) -> None:
    command = _hint(tmp_path, text, field=field).removeprefix("Convert it, and read the new file in its place: ")
    subprocess.run(["sh", "-c", command], check=True, timeout=60)
    documents = JsonLinesDataSpec(path=("lines-a b.jsonl",), field=field).documents(tmp_path)
    assert [document.text for document in documents] == expected


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize("names", [("instruction", "input", "output"), ("instruction", "context", "response")])
def test_both_parts_of_a_prompt_are_kept(tmp_path: Path, names: tuple[str, str, str]) -> None:
    rows = [dict(zip(names, values, strict=True)) for values in (("Add.", "", "2"), ("Add.", "1, 2", "3"))]
    hint = _hint(tmp_path, "\n".join(map(json.dumps, rows)))
    settings, _, command = hint.partition(" Convert it, and read the new file in its place: ")
    assert settings == f"Set `prompt_field: prompt` and `field: {names[2]}`."
    subprocess.run(["sh", "-c", command], check=True, timeout=60)
    data = JsonLinesDataSpec(path=("lines-a b.jsonl",), prompt_field="prompt", field=names[2], prompt_end="\n")
    assert [document.text for document in data.documents(tmp_path)] == ["Add.\n2", "Add.\n1, 2\n3"]


@pytest.mark.parametrize(
    "text",
    [
        '{"content": "one", "meta": {"by": "x"}}\n',
        '{"meta": {"number": 1}}\n',
        '{"a": ' * 100 + '"x"' + "}" * 100 + "\n",
    ],
)
def test_other_fields_have_the_general_remedy(tmp_path: Path, text: str) -> None:
    assert "Convert it" not in _hint(tmp_path, text)


@pytest.mark.parametrize("name", ["books.txt", "books.txt.gz"])
def test_tar_archive_is_named(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith(".gz") else "w") as archive:
        archive.addfile(tarfile.TarInfo("one.txt"), io.BytesIO())
    with pytest.raises(DataError, match="not a text, but a tar archive"):
        list(TextDataSpec(path=(name,)).documents(tmp_path))


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("https://example.com/a.txt", "https://example.com/a.txt: an address, not a path", "Download it"),
        ("$HOME/a.txt", "not found", "Environment variables are not replaced"),
        ("a.txt", "not found", "Relative paths count from"),
    ],
)
def test_path_in_another_notation_has_its_own_remedy(tmp_path: Path, path: str, message: str, hint: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(TextDataSpec(path=(path,)).documents(tmp_path))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


def test_path_from_the_current_directory_is_named_from_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.txt").write_text("text")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="not found") as caught:
        list(TextDataSpec(path=("a.txt",)).documents(tmp_path / "specs"))
    assert caught.value.hint == f"Relative paths count from {tmp_path / 'specs'}; write ../here/a.txt."


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            {"instruction": "Add.", "input": "", "output": "2"},
            "Set `prompt_field: prompt` and `field: output`. Convert it",
        ),
        ({"prompt": "Add.", "completion": "2"}, "Set `prompt_field: prompt` and `field: completion` to learn"),
        ({"chat": [{"from": "human", "value": "Hi"}]}, "Set `messages_field: chat` to read conversations"),
        ({"id": 1, "messages": [{"role": "user", "content": "Hi"}]}, "Set `messages_field: messages` to read conversations"),
        ({"a": "Add.", "b": "2"}, "Set `field` to the name of a field of the file"),
    ],
)
def test_prompts_and_conversations_are_named(tmp_path: Path, line: dict[str, Any], hint: str) -> None:
    assert _hint(tmp_path, json.dumps(line) + "\n").startswith(hint)


def test_first_line_that_nests_too_deeply_has_the_remedy_of_a_wrong_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a", "tree": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"x\.jsonl:1: .*nests too deeply\n  Correct the line"):
        list(JsonLinesDataSpec(path="x.jsonl").documents(tmp_path))
