"""Saved tokenizers: valid ids are read back, other values are an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import FileError, TokenizerError
from gptkit.text.ranks import RankTokenizer
from gptkit.text.state import SavedState, write_state

RANKS = {bytes((value,)): value + 1 for value in range(256)}


def saved(directory: Path, ids: Any) -> SavedState:
    write_state(directory, "bpe", {"ids": ids})
    return SavedState(directory, "bpe")


def test_id_zero_is_read_back(tmp_path: Path) -> None:
    assert saved(tmp_path, {"<|end|>": 0, "<|user|>": 257}).ids("ids") == {"<|end|>": 0, "<|user|>": 257}


@pytest.mark.parametrize("wrong", [-1, 1.0, "0", None, True])
def test_invalid_id_is_an_error(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(TokenizerError, match="'ids' does not map to ids"):
        saved(tmp_path, {"<|end|>": 0, "<|user|>": wrong}).ids("ids")


def test_special_token_with_id_zero_is_saved(tmp_path: Path) -> None:
    tokenizer = RankTokenizer("bpe", r"[\s\S]", RANKS, {"<|end|>": 0}, None, "<|end|>")
    tokenizer.save(tmp_path)
    again = RankTokenizer.load(tmp_path, "bpe")
    assert again.end_id == 0
    assert dict(again.special_tokens) == {"<|end|>": 0}
    assert again.encode("ab") == tokenizer.encode("ab") == [98, 99]
    assert again.decode([0, 98]) == tokenizer.decode([0, 98])


def test_full_disk_is_reported_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"gptkit-tokenizer\.json cannot be written: No space left"):
        write_state(tmp_path, "byte", {})
