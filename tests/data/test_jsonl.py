"""JSON Lines, and the built-in corpus."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from gptkit.components.data.builtin import BuiltinDataSpec
from gptkit.components.data.jsonl import JsonLinesDataSpec
from gptkit.core.errors import DataError


def write(path: Path, *lines: str | bytes) -> None:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n")


def test_each_line_is_a_document(tmp_path: Path) -> None:
    texts = ["one", "two\nlines \u2028 and 'quotes' 🙂", "three"]
    write(
        tmp_path / "x.jsonl",
        b"\xef\xbb\xbf" + json.dumps({"text": texts[0]}).encode(),
        "",
        json.dumps({"id": 1, "text": texts[1]}, ensure_ascii=False),
        json.dumps({"text": ""}),
        json.dumps({"text": texts[2]}) + "\r",
    )
    documents = list(JsonLinesDataSpec(path="x.jsonl").documents(tmp_path))
    assert [document.text for document in documents] == texts
    assert [document.source for document in documents] == ["x.jsonl:1", "x.jsonl:3", "x.jsonl:5"]


def test_field_and_gzip_are_supported(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"body": "b", "text": "t"}\n'))
    assert [d.text for d in JsonLinesDataSpec(path=".", field="body").documents(tmp_path)] == ["b"]


BAD = {
    '{"text": "a"': r"not JSON: .* at column \d+",
    '["text"]': "not a JSON object",
    '{"body": 1, "id": 2}': "no field 'text'; there is 'body', 'id'",
    "{}": "no field 'text'; there is none",
    '{"text": 5}': "field 'text' is not a string",
    '{"text": null}': "field 'text' is not a string",
    '{"text": "\\ud83d"}': "a lone surrogate",
    b'{"text": "\xff"}': "byte 10 of the line is not UTF-8",
    "[" * 100_000: "nests too deeply",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: str(line)[:20])
def test_bad_line_is_reported_and_can_be_skipped(tmp_path: Path, line: str | bytes) -> None:
    write(tmp_path / "x.jsonl", '{"text": "first"}', line, '{"text": "last"}')
    with pytest.raises(DataError, match=rf"x\.jsonl:2: .*{BAD[line]}.*\n  .*skip_bad_lines: true"):
        list(JsonLinesDataSpec(path="x.jsonl").documents(tmp_path))
    data = JsonLinesDataSpec(path="x.jsonl", skip_bad_lines=True)
    assert [document.text for document in data.documents(tmp_path)] == ["first", "last"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "\xe4"}', r"x\.jsonl:1: byte 10 of the line is not UTF-8\n  If only few .*iconv -f ISO-8859-1 -t UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16"), r"x\.jsonl: this is UTF-16, not UTF-8\n  Convert it"),
        (gzip.compress(b'{"text": "a"}'), r"x\.jsonl: not a text, but compressed with gzip.*\n  Rename .*x\.jsonl\.gz"),
    ],
    ids=["latin", "utf-16", "gzip"],
)
def test_a_file_that_is_not_json_lines_is_reported_with_its_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(JsonLinesDataSpec(path="x.jsonl").documents(tmp_path))


def test_number_of_skipped_lines_is_reported_once_per_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise a corpus most of whose lines have another field would be lost without a word."""
    write(tmp_path / "x.jsonl", '{"text": "first"}', '{"content": "a"}', '{"content": "b"}')
    write(tmp_path / "y.jsonl", '{"text": "last"}')
    data = JsonLinesDataSpec(path=["x.jsonl", "y.jsonl"], skip_bad_lines=True)
    for _ in range(2):
        assert len(list(data.documents(tmp_path))) == 2
    assert caplog.messages == [
        "x.jsonl: 2 of 3 lines are skipped, the first one: x.jsonl:2: no field 'text'; there is 'content'"
    ]


def test_the_fingerprint_depends_on_what_is_read(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", '{"text": "first"}')
    kinds = [JsonLinesDataSpec(path="x.jsonl"), JsonLinesDataSpec(path="x.jsonl", field="a")]
    kinds.append(JsonLinesDataSpec(path="x.jsonl", skip_bad_lines=True))
    prints = {data.fingerprint(tmp_path) for data in kinds}
    write(tmp_path / "x.jsonl", '{"text": "farst"}')
    assert len(prints | {kinds[0].fingerprint(tmp_path)}) == 4


def test_builtin_has_every_topic_in_order() -> None:
    from pydoc_data.topics import topics

    documents = list(BuiltinDataSpec().documents(Path()))
    assert [document.text for document in documents] == [topics[topic] for topic in sorted(topics)]
    assert sum(len(document.text) for document in documents) > 300_000
    assert BuiltinDataSpec().fingerprint(Path()) == BuiltinDataSpec().fingerprint(Path("/"))


def test_builtin_order_does_not_depend_on_the_order_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    import pydoc_data.topics

    before = BuiltinDataSpec().fingerprint(Path())
    monkeypatch.setattr(pydoc_data.topics, "topics", dict(reversed(pydoc_data.topics.topics.items())))
    sources = [document.source for document in BuiltinDataSpec().documents(Path())]
    assert sources == sorted(sources)
    assert BuiltinDataSpec().fingerprint(Path()) == before


def test_builtin_fingerprint_changes_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    import pydoc_data.topics

    before = BuiltinDataSpec().fingerprint(Path())
    monkeypatch.setitem(pydoc_data.topics.topics, "dict", "other")
    assert BuiltinDataSpec().fingerprint(Path()) != before


def test_python_without_topics_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"without pydoc_data\.topics"):
        list(BuiltinDataSpec().documents(Path()))


@pytest.mark.parametrize(
    ("name", "lines", "settings", "remedy"),
    [
        ("x.csv", ["id,text", "1,one"], {}, "The file is a table: .*csv.DictReader"),
        ("x.txt", ["Once upon a time"], {}, "set data.name to `text`"),
        ("x.jsonl", ['{"body": "one"}'], {}, "Set `field` to the name of a field of the file"),
        ("x.jsonl", ['{"messages": []}'], {}, "Set `messages_field: messages`"),
        ("x.jsonl", ['{"text": "one"}'], {"messages_field": "messages"}, "Set `messages_field` to the name"),
        ("x.jsonl", ['{"text": "one"}'], {"prompt_field": "question"}, "Set `prompt_field` to the name"),
        ("x.jsonl", ["{", '"text": "one"', "}"], {}, "jq -c \\. "),
        ("x.jsonl", ['{"text": "one"}', "{"], {}, "^Correct the line"),
    ],
)
def test_file_in_another_form_has_its_own_remedy(
    tmp_path: Path, name: str, lines: list[str], settings: dict[str, str], remedy: str
) -> None:
    write(tmp_path / name, *lines)
    with pytest.raises(DataError) as caught:
        list(JsonLinesDataSpec(path=name, **settings).documents(tmp_path))
    assert re.search(remedy, caught.value.hint or "")


@pytest.mark.parametrize("compressed", [False, True])
def test_command_for_an_array_can_be_copied_into_a_shell(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("my data.json.gz" if compressed else "my data.json")
    content = b'[{"text": "one"}]\n'
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(DataError) as caught:
        list(JsonLinesDataSpec(path=path.name).documents(tmp_path))
    words = shlex.split((caught.value.hint or "").removeprefix("Convert it, and read the new file in its place: "))
    read = ["gzip", "-dc", str(path), "|", "jq", "-c", ".[]"] if compressed else ["jq", "-c", ".[]", str(path)]
    assert words == [*read, ">", str(tmp_path / "lines-my data.json")]


def test_number_with_too_many_digits_is_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "some text", "x": ' + "9" * 5000 + "}\n")
    data = JsonLinesDataSpec(path=("a.jsonl",))
    with pytest.raises(DataError, match=r"a.jsonl:1: a whole number of more than 4,300 digits cannot be read"):
        list(data.documents(tmp_path))


def test_conversations_of_sharegpt_are_those_with_roles(tmp_path: Path) -> None:
    roles = [
        ("system", "system", "Be brief."),
        ("human", "user", "Hi"),
        ("gpt", "assistant", "Hello"),
        ("user", "user", "?"),
    ]
    shared = [{"from": name, "value": text, "weight": 1} for name, _, text in roles]
    (tmp_path / "a.jsonl").write_text(json.dumps({"conversations": shared}))
    (document,) = JsonLinesDataSpec(path="a.jsonl", messages_field="conversations").documents(tmp_path)
    assert document.messages == tuple({"role": role, "content": text} for _, role, text in roles)
    assert document.text == "Be brief.\nHi\nHello\n?"


def test_parts_of_text_are_one_content(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "What"}, {"type": "text", "text": "is it?"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "It.", "weight": 1}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    (document,) = JsonLinesDataSpec(path="a.jsonl", messages_field="messages").documents(tmp_path)
    assert document.messages == ({"role": "user", "content": "What\nis it?"}, messages[1])
    assert document.text == "What\nis it?\nIt."


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url"}]},
            "message 1 of 'chat': field 'content' is not a string",
        ),
        (
            {"role": "assistant", "content": "No.", "weight": 0},
            "message 1 of 'chat' has the weight 0, and a turn of the assistant cannot be excluded from the loss",
        ),
        ({"from": "gpt", "value": "No.", "weight": 0}, "message 1 of 'chat' has the weight 0"),
        (
            {"from": "robot", "value": "Hi"},
            "message 1 of 'chat' is not an object with a 'role', or with 'from' (system, human, ",
        ),
        ({"from": "gpt"}, "message 1 of 'chat': field 'content' is not a string"),
        ({"from": ["gpt"], "value": "Hi"}, "message 1 of 'chat' is not an object with a 'role'"),
    ],
)
def test_other_messages_are_bad_lines(tmp_path: Path, message: dict[str, Any], error: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"chat": [message]}))
    with pytest.raises(DataError, match=re.escape(error)):
        list(JsonLinesDataSpec(path="a.jsonl", messages_field="chat").documents(tmp_path))
