"""Text files, directories and globs."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.components.data import text as text_module
from gptkit.components.data._files import _walk
from gptkit.components.data.text import TextDataSpec, read_documents
from gptkit.core.errors import DataError
from gptkit.data.split import plan_split


def texts(data: TextDataSpec, base: Path) -> list[str]:
    return [document.text for document in data.documents(base)]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    for name, text in {
        "b.txt": "second\n",
        "a.txt": "first\n",
        "sub/deep/c.md": "third\n",
        "notes.rst": "not taken\n",
        ".hidden.txt": "not taken\n",
        ".git/x.txt": "not taken\n",
    }.items():
        path = tmp_path / "books" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_directory_yields_its_files_sorted_and_at_any_depth(books: Path) -> None:
    assert texts(TextDataSpec(path="books"), books) == ["first\n", "second\n", "third\n"]
    assert [document.source for document in TextDataSpec(path="books").documents(books)] == [
        str(Path("books", name)) for name in ("a.txt", "b.txt", "sub/deep/c.md")
    ]


def test_patterns_select_the_files_of_a_directory(books: Path) -> None:
    assert texts(TextDataSpec(path="books", patterns="*.RST"), books) == ["not taken\n"]
    with pytest.raises(DataError, match=r"books: no file in this directory is named \*\.csv or \*\.tsv"):
        texts(TextDataSpec(path="books", patterns=["*.csv", "*.tsv"]), books)


def test_globs_and_lists_keep_their_order_without_duplicates(books: Path) -> None:
    assert texts(TextDataSpec(path="books/*.txt"), books) == ["first\n", "second\n"]
    assert texts(TextDataSpec(path=["books/b.txt", "books/*.txt", "books"]), books) == ["second\n", "first\n", "third\n"]
    assert texts(TextDataSpec(path="books/**/c.*"), books) == ["third\n"]
    assert texts(TextDataSpec(path="books/**"), books) == ["first\n", "second\n", "third\n"]
    assert texts(TextDataSpec(path=str(books / "book?")), Path("/")) == ["first\n", "second\n", "third\n"]


def test_a_file_whose_name_has_glob_characters_is_found(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("odd")
    assert texts(TextDataSpec(path="a[1].txt"), tmp_path) == ["odd"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.txt", r"nowhere\.txt: file or directory not found\n  Relative paths count from"),
        ("no*where", r"no\*where: no file matches this glob"),
        ("x\0y", "file or directory not found"),
        ("a**b*", "glob"),
    ],
)
def test_missing_path_is_reported(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        texts(TextDataSpec(path=path), tmp_path)


def test_loops_of_links_terminate(books: Path) -> None:
    (books / "books/sub/loop").symlink_to(books / "books", target_is_directory=True)
    (books / "books/twice.txt").symlink_to(books / "books/a.txt")
    assert texts(TextDataSpec(path="books"), books) == ["first\n", "second\n", "third\n"]
    assert len(_walk(books / "books", ["*.md"])) == 1  # the loop was not followed up to the system's limit


def test_a_linked_directory_is_followed(books: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "d.txt").write_text("fourth\n")
    (books / "books/z").symlink_to(elsewhere, target_is_directory=True)
    assert texts(TextDataSpec(path="books"), books)[-1] == "fourth\n"


def test_empty_files_are_omitted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text(" \n\n")
    (tmp_path / "c.txt").write_text("text")
    assert texts(TextDataSpec(path="."), tmp_path) == ["text"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\nthr\xffee\n", r"x\.txt:3: byte 11 is not UTF-8\n  Convert it .*iconv -f ISO-8859-1"),
        (b"one\n\xe2\x82", r"x\.txt:2: byte 4 is not UTF-8"),
        (b"\x93one\x94 for \x805", r"x\.txt:1: byte 0 is not UTF-8\n  Convert it .*iconv -f CP1252"),
        (b"caf\xe9 for \x805", r"x\.txt:1: byte 3 is not UTF-8\n  Convert it .*iconv -f CP1252"),
        (b"one\0two", r"x\.txt:1: not a text: byte 3 is zero\n  Remove zero bytes with tr -d '\\000'"),
        (b"one\ntwo\n\0\n", r"x\.txt:3: not a text: byte 8 is zero"),
        ("text".encode("utf-16"), r"x\.txt: this is UTF-16, not UTF-8\n  .*iconv -f UTF-16 "),
        ("text".encode("utf-16-le"), r"x\.txt: this is UTF-16, not UTF-8\n  .*iconv -f UTF-16LE "),
        ("text".encode("utf-16-be"), r"x\.txt: this is UTF-16, not UTF-8\n  .*iconv -f UTF-16BE "),
        ("It’s “text”\n".encode("utf-16-le"), r"x\.txt: this is UTF-16, not UTF-8\n  .*iconv -f UTF-16LE "),
        ("שלום עולם\n".encode("utf-16-be"), r"x\.txt: this is UTF-16, not UTF-8\n  .*iconv -f UTF-16BE "),
        ("text".encode("utf-32"), r"x\.txt: this is UTF-32, not UTF-8\n  .*iconv -f UTF-32 "),
        ("two words".encode("utf-32-be"), r"x\.txt: this is UTF-32, not UTF-8\n  .*iconv -f UTF-32BE "),
        ("\ufeffcafé — naïve".encode() + b"\xff", r"byte 19 is not UTF-8\n  The rest of it is UTF-8.*iconv -c -f UTF-8 -t"),
        ("é".encode() * 5000 + b"\xc3", r"byte 10000 is not UTF-8\n  The rest of it is UTF-8.*remove such bytes"),
        ("今日は世界\n".encode("shift-jis") * 3, r"byte 0 is not UTF-8\n  .*SHIFT_JIS, .* iconv -f ENCODING -t UTF-8"),
        ("привет мир\n".encode("koi8-r") * 3, r"byte 0 is not UTF-8\n  .*CP1251 in place of ENCODING"),
        (b"%PDF-1.7\n\xe2\xe3", r"x\.txt: not a text, but a PDF document\n  Extract its text"),
        (b"PK\3\4\x14\0\6", r"x\.txt: not a text, but a ZIP archive, as \.docx"),
        (b"\x93NUMPY\1\0v\0", r"x\.txt: not a text, but an array of NumPy"),
        (bytes([120, 3, 0, 200, 5]) * 90, r"x\.txt: not a text, but binary data: byte 2 is zero\n  Extract its text"),
        (bytes([1, 0, 7, 2, 3, 65, 66]) * 90, r"x\.txt: not a text, but binary data: byte 1 is zero"),
        (b"PAR1\x15\x04", r"x\.txt: not a text, but a Parquet table"),
        (b"\x1f\x8b\x08\0", r"x\.txt: not a text, but compressed with gzip; name it \.gz\n  Rename .*x\.txt\.gz"),
    ],
)
def test_invalid_utf8_is_reported_with_its_location(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        texts(TextDataSpec(path="x.txt"), tmp_path)


def test_a_path_that_no_file_system_has_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        texts(TextDataSpec(path="x" * 300), tmp_path)


def test_locations_and_characters_span_chunks(tmp_path: Path) -> None:
    chunk = 1 << 20
    good = b"a" * (chunk - 2) + "\n€".encode()  # the euro sign's three bytes cross the boundary
    (tmp_path / "x.txt").write_bytes(good)
    assert texts(TextDataSpec(path="x.txt"), tmp_path) == [good.decode()]
    (tmp_path / "x.txt").write_bytes(good[:-1] + b"\n")
    with pytest.raises(DataError, match=rf"x\.txt:2: byte {chunk - 1} is not UTF-8"):
        texts(TextDataSpec(path="x.txt"), tmp_path)
    (tmp_path / "x.txt").write_bytes(good + b"\n\xff")
    with pytest.raises(DataError, match=rf"x\.txt:3: byte {chunk + 3} is not UTF-8"):
        texts(TextDataSpec(path="x.txt"), tmp_path)


def test_line_ends_and_byte_order_mark_are_normalized(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert texts(TextDataSpec(path="x.txt"), tmp_path) == ["one\ntwo\nthree\n"]


def test_gzip_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(b"packed text\n" * 1000)
    (tmp_path / "x.txt.gz").write_bytes(packed)
    assert texts(TextDataSpec(path="."), tmp_path) == ["packed text\n" * 1000]
    (tmp_path / "x.txt.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"x\.txt\.gz: the gzip file stops before its end"):
        texts(TextDataSpec(path="."), tmp_path)
    (tmp_path / "x.txt.gz").write_bytes(b"plain text")
    with pytest.raises(DataError, match=r"x\.txt\.gz: not a whole gzip file\n"):
        texts(TextDataSpec(path="."), tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "x.txt").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        texts(TextDataSpec(path="x.txt"), tmp_path)


def test_separator_splits_documents(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\n<|endoftext|>\ntwo\n\nmore\n<|endoftext|>\n\n<|endoftext|>three<|endoftext|>\n")
    documents = list(TextDataSpec(path="x.txt", separator="<|endoftext|>").documents(tmp_path))
    assert [document.text for document in documents] == ["one", "two\n\nmore", "three"]
    assert all(document.ends for document in documents)
    assert documents[1].source == "x.txt, document 2"
    (tmp_path / "y.txt").write_text("one\nmore\n\ntwo\n\n\nthree\n")
    assert texts(TextDataSpec(path="y.txt", separator="\n\n"), tmp_path) == ["one\nmore", "two", "three"]


def test_separator_with_line_ends_of_windows_splits_documents(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"one\r\n\r\ntwo\r\n\r\nthree")
    assert texts(TextDataSpec(path="x.txt", separator="\r\n\r\n"), tmp_path) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("separator", "remedy"),
    [
        ("\\n\\n", r'\(\\n\\n\) does not occur, so each file is one document; .* in double quotes only: "\\n\\n"'),
        ("===", r"data.separator \(===\) does not occur.*remove it, or set it"),
    ],
)
def test_separator_that_does_not_occur_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, separator: str, remedy: str
) -> None:
    text_module._warn.cache_clear()
    (tmp_path / "x.txt").write_text("one\n\ntwo")
    data = TextDataSpec(path="x.txt", separator=separator)
    assert texts(data, tmp_path) == texts(data, tmp_path) == ["one\n\ntwo"]
    (record,) = caplog.records
    assert re.search(remedy, record.getMessage())


def test_separator_in_one_of_several_files_is_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, text in {"a.txt": "one", "b.txt": "===two", "c.txt": "three"}.items():
        (tmp_path / name).write_text(text)
    assert texts(TextDataSpec(path=".", separator="==="), tmp_path) == ["one", "two", "three"]
    assert not caplog.records


@given(
    documents=st.lists(st.text(alphabet="ab \n<", min_size=1, max_size=60), max_size=8),
    piece=st.integers(4, 40),
    chunk=st.integers(1, 16),
    separator=st.sampled_from([None, "<>", "\n\n", "|", "ab<ab"]),
)
@settings(max_examples=150, deadline=None)
def test_concatenated_pieces_equal_the_documents(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], piece: int, chunk: int, separator: str | None
) -> None:
    """The documents do not depend on how a text is divided into chunks and pieces."""
    content = (separator or "").join(documents)
    split = text_module._split((content[i : i + chunk] for i in range(0, len(content), chunk)), separator, piece)
    joined, held = [], ""
    for text, ends in split:
        assert len(text) <= piece + chunk + len(separator or "")
        held += text
        if ends:
            joined.append(held)
            held = ""
    assert held == ""
    assert joined == (content.split(separator) if separator else [content])


def test_document_between_separators_is_split_into_pieces(tmp_path: Path) -> None:
    long = "some words and\n\n more\n" * 70_000  # more than is read at a time
    (tmp_path / "x.txt").write_text(f"short\n<>\n{long}\n<>\nlast\n")
    documents = list(read_documents(tmp_path / "x.txt", "x.txt", "<>", piece=100_000))
    joined, held = [], ""
    for document in documents:
        held += document.text
        if document.ends:
            joined.append(held)
            held = ""
    assert joined == ["short", long.rstrip("\n"), "last"]
    assert len(documents) > 8
    assert [document.source for document in documents][1:-1] == ["x.txt, document 2"] * (len(documents) - 2)


def test_long_file_is_split_between_lines(tmp_path: Path) -> None:
    text = "".join(f"line {number} of a long text\n\n" * (number % 7 == 0) + f"line {number}\n" for number in range(4000))
    (tmp_path / "x.txt").write_text(text)
    pieces = list(read_documents(tmp_path / "x.txt", "x.txt", piece=10_000))
    assert "".join(piece.text for piece in pieces) == text
    assert len(pieces) > 5
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for piece, following in itertools.pairwise(pieces):
        assert len(piece.text) <= 10_000
        assert re.search(r"\S\n\Z", piece.text)
        assert not following.text[0].isspace()


def test_tokens_of_pieces_equal_those_of_the_text(tmp_path: Path) -> None:
    """With GPT-2's pattern, whose pieces depend on whitespace before a boundary."""
    words = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?[^\s\w]+|\s+(?!\S)|\s+")
    text = "A line, it's said.\n  indented line 12\n\n\nAnother one\n" * 900
    (tmp_path / "x.txt").write_text(text)
    for size in range(5_000, 5_060, 6):  # the limit is at every type of boundary
        pieces = [document.text for document in read_documents(tmp_path / "x.txt", "x", piece=size)]
        assert len(pieces) > 3
        assert [word for piece in pieces for word in words.findall(piece)] == words.findall(text)


def test_a_long_line_is_cut_before_a_space(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("word " * 1000)
    pieces = [document.text for document in read_documents(tmp_path / "x.txt", "x", piece=777)]
    assert "".join(pieces) == "word " * 1000
    assert all(
        piece.endswith("word") and following.startswith(" word") for piece, following in itertools.pairwise(pieces[:-1])
    )
    (tmp_path / "x.txt").write_text("x" * 3000)
    assert [len(d.text) for d in read_documents(tmp_path / "x.txt", "x", piece=1000)] == [1000, 1000, 1000]


def test_the_fingerprint_changes_with_the_corpus_and_only_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for by_content in (True, False):
        if not by_content:
            monkeypatch.setattr("gptkit.components.data._files._BY_CONTENT", 0)
        file, more = tmp_path / "a.txt", tmp_path / "b.txt"
        file.write_text("text")
        more.unlink(missing_ok=True)
        data = TextDataSpec(path=".")
        prints = [data.fingerprint(tmp_path), TextDataSpec(path=".", separator="x").fingerprint(tmp_path)]
        file.write_text("tent")
        os.utime(file, ns=(5, 5))  # two writes may have the same time, since clocks are coarse
        prints.append(data.fingerprint(tmp_path))
        assert data.fingerprint(tmp_path) == prints[-1]
        more.write_text("more")
        prints.append(data.fingerprint(tmp_path))
        assert len(set(prints)) == 4
        assert TextDataSpec(path=".", windows="ordered").fingerprint(tmp_path) == prints[-1]


def test_a_copy_of_a_small_corpus_has_the_same_fingerprint(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("text")
    assert TextDataSpec(path="here").fingerprint(tmp_path) == TextDataSpec(path="a.txt").fingerprint(tmp_path / "there")


def test_dangling_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").symlink_to("gone.txt")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x.txt").symlink_to("gone.txt")
    (tmp_path / "y.txt").write_text("text")
    for path in ("x.txt", ".", "*.txt", "sub", "**/*.txt"):
        with pytest.raises(
            DataError, match=r"x\.txt: a link to gone\.txt, which leads to no file\n  Correct or remove the link"
        ):
            texts(TextDataSpec(path=path), tmp_path)
    assert texts(TextDataSpec(path=".", patterns=["y*"]), tmp_path) == ["text"]


def test_link_to_itself_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").symlink_to("x.txt")
    with pytest.raises(DataError, match=r"x\.txt: a link to x\.txt, which leads to no file"):
        texts(TextDataSpec(path="."), tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can be opened and not read")
def test_file_that_fails_while_it_is_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^/proc/self/mem: Input/output error"):
        TextDataSpec(path="/proc/self/mem").fingerprint(tmp_path)


def test_wildcards_stand_for_no_hidden_file_or_directory(books: Path) -> None:
    (books / "books/.git/y.md").write_text("named\n")
    assert texts(TextDataSpec(path="books/**/*.txt"), books) == ["first\n", "second\n"]
    assert texts(TextDataSpec(path="**/y.m?"), books / "books/.git") == ["named\n"]
    assert texts(TextDataSpec(path=["books/.g*/*.md", "books/.git/*.md"]), books) == ["named\n"]
    with pytest.raises(DataError, match="no file matches this glob"):
        texts(TextDataSpec(path="books/*/y.md"), books)
    with pytest.raises(DataError, match="no file matches this glob"):
        texts(TextDataSpec(path="nowhere/**"), books)


def test_experiment_in_the_directory_of_its_corpus_is_excluded(books: Path) -> None:
    experiment = books / "books" / "compared"
    (experiment / "trials").mkdir(parents=True)
    (experiment / "report.md").write_text("a report\n")
    assert "a report\n" in texts(TextDataSpec(path="books"), books)
    (experiment / "experiment.json").write_text("{}")
    assert texts(TextDataSpec(path=["books", "books/**/*.md"]), books) == ["first\n", "second\n", "third\n"]
    assert texts(TextDataSpec(path="books/compared"), books) == ["a report\n"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_names_need_not_be_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr("gptkit.components.data._files._BY_CONTENT", limit)
    for name in (b"caf\xe9.txt", b"a.t\xe9", b"b.t\xe8"):
        (tmp_path / os.fsdecode(name)).write_text("text\n")
    data = TextDataSpec(path="*")
    assert texts(data, tmp_path) == ["text\n"] * 3
    before = data.fingerprint(tmp_path)
    (tmp_path / "caf\udce9.txt").write_text("another text\n")
    assert data.fingerprint(tmp_path) != before


@pytest.mark.parametrize(("suffix", "compress"), [(".bz2", bz2.compress), (".xz", lzma.compress)])
def test_every_compressed_stream_of_a_file_is_read_or_reported(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    parts = [f"part {number} of the text\n".encode() * 20_000 for number in range(3)]
    streams = [compress(part) for part in parts]
    file = tmp_path / f"a.txt{suffix}"
    data = TextDataSpec(path=file.name)
    file.write_bytes(streams[0] + bytes(8) + streams[1] + streams[2] + bytes(100_000))
    assert "".join(texts(data, tmp_path)).encode() == b"".join(parts)
    for damaged in (
        streams[0] + b"X" + streams[1][1:] + streams[2],
        streams[0] + b"more",
        streams[0] + streams[1][:-1],
        streams[0][:-4] + streams[1],
    ):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"a\.txt\{suffix}: (not a whole|the) (bzip2|xz) file"):
            texts(data, tmp_path)


def test_command_for_another_encoding_can_be_copied_into_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "my {old} text.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DataError) as caught:
        texts(TextDataSpec(path=str(path)), tmp_path)
    words = shlex.split((caught.value.hint or "").partition("in its place: ")[2])
    assert words == ["iconv", "-f", "ISO-8859-1", "-t", "UTF-8", str(path), ">", str(tmp_path / "utf8-my {old} text.txt")]


def test_empty_corpus_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"data 'text' returned no text from empty\.txt"):
        plan_split(TextDataSpec(path="empty.txt"), tmp_path)


def test_ignored_files_of_a_directory_are_noted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("a.txt", "sub/b.md", "c.jsonl", "sub/d.csv", "e.CSV", "f.csv.gz", "LICENSE", ".hidden", "g.jsonl")
    for name in names:
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("some text of the file\n" * 9)
    plan_split(TextDataSpec(path=("data",)), tmp_path)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("data.path: 6 files are ignored, whose names data 'text' does not read: ")
    for part in ("2 .jsonl", "2 .csv", "1 .csv.gz", "1 without a suffix", "Set data.patterns", "set data.name to jsonl"):
        assert part in message
    caplog.clear()
    for path, patterns in ((("data",), ("*.txt",)), (("data/*.txt",), None), (("data/a.txt", "data/sub/b.md"), None)):
        plan_split(TextDataSpec(path=path, **({} if patterns is None else {"patterns": patterns})), tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_compressed_file_without_a_byte_is_reported(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a.txt").write_text("text of another file\n" * 9)
    (tmp_path / f"b.txt{suffix}").touch()
    with pytest.raises(DataError, match=f"b.txt{suffix}: the .* file stops before its end"):
        plan_split(TextDataSpec(path=(".",)), tmp_path)


@pytest.mark.parametrize("separator", [None, "<>"])
def test_white_space_before_a_text_is_kept_however_long_it_is(tmp_path: Path, separator: str | None) -> None:
    (tmp_path / "x.txt").write_text(" \n" * 2_000 + "text" + (separator or ""), encoding="utf-8")

    documents = list(read_documents(tmp_path / "x.txt", "x.txt", separator, piece=1_000))

    assert "".join(document.text for document in documents) == " \n" * 2_000 + "text"
    assert [document.ends for document in documents] == [False] * (len(documents) - 1) + [True]


def test_long_documents_of_white_space_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(" " * 5_000 + "<>" + " " * 5_000 + "<>text", encoding="utf-8")

    documents = list(read_documents(tmp_path / "x.txt", "x.txt", "<>", piece=1_000))

    assert [(document.text, document.source) for document in documents] == [("text", "x.txt, document 3")]
