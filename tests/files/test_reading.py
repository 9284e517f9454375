"""Reading YAML, TOML and JSON: values, locations, and untrusted input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptkit.core.errors import GptkitError
from gptkit.files import read
from gptkit.files.building import MAX_BYTES, MAX_DEPTH, MAX_NODES

YAML = """\
# a comment
name: tiny
model:
  d_model: 256
  norm: rms
  attention: {name: grouped-query, n_heads: 8}
  layers:
  - repeat: 5
    window: 64
  - {repeat: 1}
training:
  rate: 1e-5
"""
TOML = """\
# a comment
name = "tiny"
[model]
d_model = 256
norm = "rms"
attention = {name = "grouped-query", n_heads = 8}
[[model.layers]]
repeat = 5
window = 64
[[model.layers]]
repeat = 1
[training]
rate = 1e-5
"""
JSON = """\
{
  "name": "tiny",
  "model": {
    "d_model": 256,
    "norm": "rms",
    "attention": {"name": "grouped-query", "n_heads": 8},
    "layers": [{"repeat": 5, "window": 64},
               {"repeat": 1}]
  },
  "training": {"rate": 1e-5}
}
"""
DATA = {
    "name": "tiny",
    "model": {
        "d_model": 256,
        "norm": "rms",
        "attention": {"name": "grouped-query", "n_heads": 8},
        "layers": [{"repeat": 5, "window": 64}, {"repeat": 1}],
    },
    "training": {"rate": 1e-5},
}


# -- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"), [(YAML, "a.yaml"), (YAML, "a.yml"), (TOML, "a.toml"), (JSON, "a.json"), (JSON, "j.yaml")]
)
def test_all_formats_give_equal_data(load, text, name):
    assert load(text, name).data == DATA


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("2.", 2.0),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("y", "y"),
        ("2026-11-24", "2026-11-24"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("'5'", "5"),
        ('"a\\nb"', "a\nb"),
        ("=", "="),
        ("|\n  two\n  lines", "two\nlines\n"),
        ("é😀", "é😀"),
    ],
)
def test_yaml_scalars_follow_the_core_schema_of_1_2(load, text, value):
    result = load(f"a: {text}\n").data["a"]
    assert result == value
    assert type(result) is type(value)


def test_anchors_and_aliases_are_copies_of_the_value(load):
    source = load("a: &x {b: [1, 2]}\nc: *x\nd: *x\n")
    assert source.data == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": {"b": [1, 2]}}
    assert source.locate(("d", "b", 1)) == (str(source.path), 1, 15)


def test_windows_line_ends_and_byte_order_mark_are_accepted(load):
    assert load("\ufeffa: 1\r\nb:\r\n  c: 2\r\n".encode()).data == {"a": 1, "b": {"c": 2}}
    toml = load("\ufeffa = 1\r\n[b]\r\nc = 2\r\n".encode(), "a.toml")
    assert toml.data == {"a": 1, "b": {"c": 2}}
    assert toml.locate(("b", "c"))[1:] == (3, 5)


def test_the_editors_schema_key_is_ignored(load):
    assert load('{"$schema": "gptkit.schema.json", "a": 1}', "a.json").data == {"a": 1}


# -- locations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "yaml", "toml", "json"),
    [
        ((), (1, 1), (1, 1), (1, 1)),
        (("name",), (2, 7), (2, 8), (2, 11)),
        (("model",), (3, 1), (3, 1), (3, 3)),
        (("model", "d_model"), (4, 12), (4, 11), (4, 16)),
        (("model", "norm"), (5, 9), (5, 8), (5, 13)),
        (("model", "norm", "name"), (5, 9), (5, 8), (5, 13)),
        (("model", "attention", "n_heads"), (6, 45), (6, 48), (6, 55)),
        (("model", "attention", "missing"), (6, 3), (6, 1), (6, 5)),
        (("model", "layers", 0, "window"), (9, 13), (9, 10), (7, 40)),
        (("model", "layers", 1), (10, 5), (10, 1), (8, 16)),
        (("model", "layers", 1, "repeat"), (10, 14), (11, 10), (8, 27)),
        (("model", "layers", 7), (7, 3), (7, 3), (7, 5)),
        (("training", "rate", "x", 3), (12, 9), (13, 8), (10, 24)),
        (("nothing", "such"), (1, 1), (1, 1), (1, 1)),
    ],
)
def test_every_path_has_a_location(load, path, yaml, toml, json):
    for text, name, location in ((YAML, "a.yaml", yaml), (TOML, "a.toml", toml), (JSON, "a.json", json)):
        source = load(text, name)
        if name == "a.toml" and path in (("model",), ("model", "layers", 7)):
            # The key of a table is in its header.
            location = {("model",): (3, 2), ("model", "layers", 7): (7, 9)}[path]
        assert source.locate(path) == (str(source.path), *location), name


def test_keys_have_locations(load):
    assert load(YAML).locate(("model", "norm"), key=True)[1:] == (5, 3)
    assert load(TOML, "a.toml").locate(("model", "norm"), key=True)[1:] == (5, 1)
    assert load(JSON, "a.json").locate(("model", "norm"), key=True)[1:] == (5, 5)


def test_empty_value_is_located_at_its_key(load):
    source = load("a:\n  b:\n  c: {d: , e: 1}\n")
    assert source.locate(("a", "b"))[1:] == (2, 3)
    assert source.locate(("a", "c", "d"))[1:] == (3, 7)


def test_toml_locations_ignore_toml_in_strings(load):
    source = load(
        'a = """\n[b]\nc = 1 # "\n"""\n"x.y" . z = \'#\' # c = 2\nlist = [ # one\n  1, "]",\n  { d = [3] }, # two\n]\n'
        "e.f = '''\n]'''\ng = 5\n",
        "a.toml",
    )
    assert source.data == {"a": '[b]\nc = 1 # "\n', "x.y": {"z": "#"}, "list": [1, "]", {"d": [3]}], "e": {"f": "]"}, "g": 5}
    assert source.locate(("x.y", "z"))[1:] == (5, 13)
    assert source.locate(("list", 2, "d", 0))[1:] == (8, 10)
    assert source.locate(("e", "f"))[1:] == (10, 7)
    assert source.locate(("g",))[1:] == (12, 5)


def test_toml_locations_in_tables_below_lists(load):
    source = load("[[a]]\nx = 1\n[[a.b]]\ny = 1\n[[a.b]]\ny = 2\n[[a]]\n[a.c]\nz = 3\n[[a.b]]\ny = 4\n", "a.toml")
    assert source.data == {"a": [{"x": 1, "b": [{"y": 1}, {"y": 2}]}, {"c": {"z": 3}, "b": [{"y": 4}]}]}
    assert source.locate(("a", 0, "b", 1, "y"))[1:] == (6, 5)
    assert source.locate(("a", 1, "c", "z"))[1:] == (9, 5)
    assert source.locate(("a", 1, "b", 0, "y"))[1:] == (11, 5)


# -- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gpt.yaml:1:1: the file is empty; a spec needs at least a 'model'"),
        ("# only a comment\n", "gpt.yaml:1:1: the file is empty; a spec needs at least a 'model'"),
        ("- a\n- b", "gpt.yaml:1:1: a spec is a mapping of keys such as 'model' and 'training', not a list"),
        ("hello", "gpt.yaml:1:1: a spec is a mapping of keys such as 'model' and 'training', not a single value"),
        ("a:\n  c: !!python/object:os.system x", "gpt.yaml:2:6: a.c: tags are refused: remove !!python/object:os.system"),
        ("a: !!str 5", "gpt.yaml:1:4: a: tags are refused: remove !!str"),
        ("!x {a: 1}", "gpt.yaml:1:1: tags are refused: remove !x"),
        ("a: ! 5", "gpt.yaml:1:4: a: tags are refused: remove !"),
        ("a: {b: 1}\na: 2", "gpt.yaml:2:1: a: given twice; first at line 1; remove one of the two"),
        ("1: x", "gpt.yaml:1:1: a key must be a text, got 1; put it in quotes"),
        ("a: {true: x}", "gpt.yaml:1:5: a: a key must be a text, got true; put it in quotes"),
        ("~: x", "gpt.yaml:1:1: a key must be a text, got null; put it in quotes"),
        ("[a]: x", "gpt.yaml:1:1: a key must be a text, not a mapping or list"),
        ("a: &k b\n*k : x", "gpt.yaml:2:1: a key must be a text, not an alias"),
        ("a: .nan", "gpt.yaml:1:4: a: not a finite number"),
        ("a: [1, -.inf]", "gpt.yaml:1:8: a.1: not a finite number"),
        ("a: 1e999", "gpt.yaml:1:4: a: not a finite number"),
        ("a: " + "9" * 30, "gpt.yaml:1:4: a: a whole number this large cannot be used; the largest is 2**63 - 1"),
        ("a: " + "9" * 9999, "gpt.yaml:1:4: a: not a finite number"),
        ("a: 1\n---\nb: 2", "gpt.yaml:2:1: a spec is one document; remove what follows '---'"),
        ("%YAML 1.1\n---\na: no", "gpt.yaml:1:1: specs are YAML 1.2; remove the %YAML line"),
        ("<<: {a: 1}", "gpt.yaml:1:1: merge keys are not YAML 1.2; write the fields out, or use 'extends'"),
        ("a: *b", "gpt.yaml:1:4: a: alias *b has no anchor before it"),
        ("a: &b [*b]", "gpt.yaml:1:8: a.0: alias *b is inside the value that it refers to"),
        ("a: {b: 1\nc: 2", "gpt.yaml:2:2: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got ':'"),
        ('a: "\\0"', "gpt.yaml:1:4: a: a text cannot contain the character U+0000"),
        ('a: "\\ud800"', "gpt.yaml:1:4: a: a text cannot contain the character U+D800"),
        ("a: b\x00", "gpt.yaml:1:5: the character U+0000 is not allowed in a spec file; check that it is a text file"),
        (b"a: 1\nb: \xff\xfe", "gpt.yaml:2:4: is not UTF-8 text; save it as UTF-8"),
        ("x" * 300 + ": 1", "gpt.yaml:1:1: a key of more than 200 characters"),
    ],
)
def test_error_in_yaml_is_located(load, errors, text, message):
    assert errors(load, text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gpt.json:1:1: the file is empty; a spec needs at least a 'model'"),
        ("[1]", "gpt.json:1:1: a spec is a mapping of keys such as 'model' and 'training', not a list"),
        ("{'a': 1}", "gpt.json:1:2: not valid JSON: expected a key in double quotes"),
        ('{"a": 1,}', "gpt.json:1:8: not valid JSON: a comma before '}'; remove it"),
        ('{"a": [1,]}', "gpt.json:1:9: not valid JSON: a comma before ']'; remove it"),
        ('{"a": [,]}', "gpt.json:1:8: not valid JSON: expected a value"),
        ('{"a": None}', "gpt.json:1:7: not valid JSON: 'None' is not a JSON value; write null"),
        (
            '{"a": 1, // why\n"b": 2}',
            "gpt.json:1:10: not valid JSON: JSON has no comments; remove it, or write the spec as YAML",
        ),
        ('{"a" 1}', "gpt.json:1:6: not valid JSON: expected ':' after the key"),
        ('{"a": 1 "b": 2}', "gpt.json:1:9: not valid JSON: expected ',' or '}'"),
        ('{"a": [1 2]}', "gpt.json:1:10: not valid JSON: expected ',' or ']'"),
        ('{"a": NaN}', "gpt.json:1:7: not valid JSON: 'NaN' is not a JSON value; strings need double quotes"),
        ('{"a": yes}', "gpt.json:1:7: not valid JSON: 'yes' is not a JSON value; strings need double quotes"),
        ('{"a": 01}', "gpt.json:1:8: not valid JSON: expected ',' or '}'"),
        ('{"a": 1e999}', "gpt.json:1:7: a: not a finite number"),
        ('{"a": 1} // end', "gpt.json:1:10: not valid JSON: JSON has no comments; remove it, or write the spec as YAML"),
        ('{"a": 1} {}', "gpt.json:1:10: not valid JSON: nothing may follow the closing bracket"),
        ('{"a": "b\nc"}', "gpt.json:1:9: not valid JSON: invalid control character at"),
        ('{"a": "b}', "gpt.json:1:7: not valid JSON: unterminated string starting at"),
        ('{"a":\n "\\ud800"}', "gpt.json:2:2: a: a text cannot contain the character U+D800"),
        ('{"a": 1,\n "a": 2}', "gpt.json:2:2: a: given twice; first at line 1; remove one of the two"),
    ],
)
def test_error_in_json_is_located(load, errors, text, message):
    assert errors(load, text, "gpt.json") == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing", "gpt.toml:1:1: the file is empty; a spec needs at least a 'model'"),
        ("a = \n", "gpt.toml:1:5: not valid TOML: invalid value; texts need quotes"),
        ("a = 1\na = 2", "gpt.toml:2:6: not valid TOML: cannot overwrite a value"),
        ("a = 1\n[b\n", "gpt.toml:2:3: not valid TOML: "),
        ("a = [1", "gpt.toml:1:7: not valid TOML: unclosed array"),
        ("[b]\nwhen = 2026-11-24", "gpt.toml:2:8: b.when: dates and times are not supported in a spec; put it in quotes"),
        ("a = [1, inf]", "gpt.toml:1:9: a.1: not a finite number"),
        ("a = " + "9" * 5000, "gpt.toml: not valid TOML: a number is too long"),
    ],
)
def test_error_in_toml_is_located(load, errors, text, message):
    [result] = errors(load, text, "gpt.toml")
    assert result.startswith(message)


def test_all_errors_of_a_file_are_reported_in_order(load, errors):
    assert errors(load, "a: .inf\nb:\n  c: 1\n  c: 2\n3: x\n") == [
        "gpt.yaml:1:4: a: not a finite number",
        "gpt.yaml:4:3: b.c: given twice; first at line 3; remove one of the two",
        "gpt.yaml:5:1: a key must be a text, got 3; put it in quotes",
    ]


def test_number_of_reported_errors_is_bounded(load, errors):
    result = errors(load, "a: 1\n" * 500)
    assert len(result) == 51
    assert "only the first 50" in result[-1]


# -- bounds ----------------------------------------------------------------------------------------------------


def test_billion_laughs_are_rejected(load, errors):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    [message] = errors(load, "\n".join(lines))
    assert f"more than {MAX_NODES} values, aliases written out" in message
    assert message.startswith("gpt.yaml:5:")


def test_number_of_aliases_is_bounded(load, errors):
    [message] = errors(load, "a: &a 1\nb: [" + "*a, " * 101 + "]")
    assert "more than 100 aliases" in message
    assert load("a: &a 1\nb: [" + "*a, " * 100 + "]").data["b"] == [1] * 100


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a: " + "[" * 5000, "a.yaml"),
        ("a: " + "{a: " * 5000, "a.yaml"),
        ("\n".join(" " * i + "a:" for i in range(500)), "a.yaml"),
        ("- " * 5000, "a.yaml"),
        ("a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{x: *a{i - 1}}}" for i in range(1, 90)), "a.yaml"),
        ('{"a":' * 5000, "a.json"),
        ("[" * 5000, "a.json"),
        ("a = " + "[" * 5000, "a.toml"),
        ("a = " + "[" * 80 + "]" * 80, "a.toml"),
        ("a." * 30_000 + "b = 1", "a.toml"),
        ("[a" + ".a" * 30_000 + "]", "a.toml"),
        ("a = {" + "a = {" * 5000, "a.toml"),
    ],
)
def test_depth_is_bounded(load, errors, text, name):
    [message] = errors(load, text, name)
    assert "nested" in message


def test_maximum_depth_is_accepted(load):
    text = "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    value = load(text).data["a"]
    for _ in range(MAX_DEPTH - 2):
        [value] = value
    assert value == []


def test_size_is_bounded(load, errors):
    assert errors(load, "#" * (MAX_BYTES + 1)) == ["gpt.yaml: is larger than 1 MiB; check that it is a spec file"]
    [message] = errors(load, "a: [" + "1, " * MAX_NODES + "]")
    assert f"more than {MAX_NODES} values" in message
    [message] = errors(load, "a: !" + "x" * 70_000)
    assert message == "gpt.yaml:1:1: a line of more than 65536 characters"


def test_paths_that_are_not_files_are_rejected(write, errors, tmp_path):
    write("a: 1", "gpt.yaml")
    write("a: 1", "notes.txt")
    (tmp_path / "directory.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    assert errors(read, tmp_path / "directory.yaml") == ["directory.yaml: is a directory, not a spec file"]
    assert errors(read, tmp_path / "pipe.yaml") == ["pipe.yaml: is not a regular file"]
    assert errors(read, tmp_path / "notes.txt") == ["notes.txt: a spec file ends in .yaml, .yml, .toml, .json"]
    [message] = errors(read, tmp_path / "gtp.yaml")
    assert message.startswith(
        "gtp.yaml: file not found; did you mean 'gpt.yaml'? (spec files here and presets: directory.yaml, gpt.yaml"
    )
    [message] = errors(read, tmp_path / "no" / "gpt.yaml")
    assert "not found" in message
    for impossible in ("a\0b.yaml", "x" * 5000):
        assert "file not found" in errors(read, impossible)[0]


def test_unreadable_file_is_reported(write, errors, monkeypatch):
    path = write("a: 1")

    def refuse(*_: object, **__: object):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert errors(read, path) == ["gpt.yaml: cannot be read: Permission denied"]


# -- arbitrary input -------------------------------------------------------------------------------------------


def mutated(text: str) -> st.SearchStrategy[bytes]:
    """Return a strategy for the text with some slices replaced by other bytes, or by slices of itself."""
    raw = text.encode()
    position = st.integers(0, len(raw))
    pieces = st.one_of(
        st.binary(max_size=4),
        st.sampled_from(
            [b"&a ", b"*a", b"!!x ", b"- ", b"? ", b": ", b"{", b"}", b"[", b"]", b'"', b"'", b"|\n", b"%", b"\n---\n"]
        ),
        st.tuples(position, position).map(lambda ends: raw[min(ends) : max(ends)]),
    )

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = raw
        for start, length, piece in edits:
            result = result[:start] + piece + result[start + length :]
        return result

    return st.lists(st.tuples(position, st.integers(0, 6), pieces), min_size=1, max_size=4).map(apply)


@pytest.mark.parametrize(("text", "suffix"), [(YAML, "yaml"), (TOML, "toml"), (JSON, "json")])
def test_mutated_files_are_read_or_rejected_with_a_location(tmp_path, text, suffix):
    path = tmp_path / f"mutated.{suffix}"

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(text))
    def check(raw: bytes) -> None:
        path.write_bytes(raw)
        try:
            source = read(path)
        except GptkitError as error:
            for problem in error.problems:
                assert problem.message
                assert problem.line is None or problem.line <= raw.count(b"\n") + 2
        else:
            assert isinstance(source.data, dict)
            assert source.locate(("model", "d_model")).file == str(path)

    check()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_arbitrary_bytes_are_read_or_rejected(tmp_path_factory, raw):
    for suffix in ("yaml", "toml", "json"):
        path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
        path.write_bytes(raw)
        try:
            assert isinstance(read(path).data, dict)
        except GptkitError as error:
            assert error.problems
