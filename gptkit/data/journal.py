"""Journal of a preparation: what is on the disk, so that an interrupted one is continued."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.core.atomic import write_bytes, write_text, writing
from gptkit.core.sealed import seal, unseal
from gptkit.data.index import META, TOKENIZER, Counts, Shard, parse_index
from gptkit.data.split import Side, Split
from gptkit.data.writing import ShardWriter, SideState

__all__ = ["Journal", "State", "own_files", "work_directory"]

_INTERVAL = 5.0
"""Seconds of work that are lost at most."""

_SHARD = r"(?:train|validation)-\d{5,9}\.(?:bin|documents\.bin|mask\.bin)(?:\.part)?"
_OWN = re.compile(rf"lock|(?:{_SHARD}|\.?(?:journal\.json|split\.bin|meta\.json)(?:\.partial-.*)?)")
"""Names of the files of a preparation, and of their temporary files."""


def work_directory(directory: Path) -> Path:
    """Return the directory in which a preparation of `directory` works."""
    path = directory if directory.name else directory.absolute()
    return path.with_name(f".{path.name}.preparing")


def own_files(work: Path) -> list[Path]:
    """Return the entries of a work directory that a preparation wrote; none if the directory is a link.

    The lock of a preparation is its first file, and the index of complete tokens its last one.
    """
    if work.is_symlink() or not work.is_dir():
        return []
    marked = (work / Journal.LOCK).is_file() or _is_index(work / META)
    return [path for path in work.iterdir() if _is_own(path)] if marked else []


def _is_index(path: Path) -> bool:
    try:
        parse_index(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return False
    return True


def _is_own(path: Path) -> bool:
    if path.is_symlink():
        return False
    return path.is_dir() if path.name == TOKENIZER else path.is_file() and _OWN.fullmatch(path.name) is not None


@dataclass(frozen=True)
class State:
    """State of a preparation.

    Attributes:
        split: the split; None if it is not decided.
        jobs: number of jobs whose tokens are written.
        characters: number of characters of these jobs.
        ends: number of training and of validation tokens up to the end of each part of a mixture.
        sides: what is written on each side; None at the beginning.
    """

    split: Split | None = None
    jobs: int = 0
    characters: int = 0
    ends: tuple[tuple[int, int], ...] = ()
    sides: Mapping[str, SideState | None] = field(default_factory=lambda: {"train": None, "validation": None})


class Journal:
    """Journal in a work directory, written every few seconds.

    Args:
        work: the work directory, which exists.
        facts: what the preparation depends on; a journal with others is not continued.
    """

    NAME = "journal.json"
    LOCK = "lock"
    SPLIT = "split.bin"
    FILES = (NAME, LOCK, SPLIT)

    def __init__(self, work: Path, facts: Mapping[str, Any]) -> None:
        self._work, self._facts = work, dict(facts)
        self._begun = False
        self._split_digest = ""
        self._due = time.monotonic() + _INTERVAL

    def read(self) -> State:
        """Return the state to continue from; the initial one, in an empty directory, if there is none that fits."""
        try:
            content = unseal((self._work / self.NAME).read_text(encoding="utf-8"))
            if content["facts"] != self._facts:
                return self.restart()
            sides = np.fromfile(self._work / self.SPLIT, np.int8)
            if content["split_sha256"] != _digest(sides):
                raise ValueError("the split has changed since it was written")
            split = _split(content["splits"], sides)
            ends = tuple((int(train), int(validation)) for train, validation in content["ends"])
            written = {side: _side(content[side]) for side in content["sides"]}
            state = State(split, content["jobs"], content["done"], ends, written)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return self.restart()
        self._begun, self._split_digest = True, content["split_sha256"]
        return state

    def restart(self) -> State:
        """Remove what an earlier preparation has written, and return the initial state."""
        with writing(self._work):
            for path in own_files(self._work):
                if path.name == self.LOCK:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        self._begun = False
        return State()

    def write_if_due(self, state: State, writers: Mapping[Side, ShardWriter]) -> None:
        """Write the state if the last one is some seconds old."""
        if time.monotonic() >= self._due:
            self.write(state, writers)

    @property
    def begun(self) -> bool:
        """Whether there is a state on the disk."""
        return self._begun

    def write(self, state: State, writers: Mapping[Side, ShardWriter]) -> None:
        """Flush the tokens to the disk, and write the state.

        Raises:
            FileError: it cannot be written.
        """
        assert state.split is not None
        for writer in writers.values():
            writer.flush()
        if not self._begun:
            write_bytes(self._work / self.SPLIT, state.split.sides.tobytes())
            self._split_digest = _digest(state.split.sides)
        content: dict[str, Any] = {
            "facts": self._facts,
            "split_sha256": self._split_digest,
            "splits": [
                {"documents": part.documents, "characters": part.characters, "cut_at": part.cut_at, "slack": part.slack}
                for part in state.split.parts or (state.split,)
            ],
            "ends": state.ends,
            "jobs": state.jobs,
            "done": state.characters,
            "sides": list(writers),
            **{side: asdict(writer.state) for side, writer in writers.items()},
        }
        write_text(self._work / self.NAME, seal(content))
        self._begun = True
        self._due = time.monotonic() + _INTERVAL


def _digest(sides: NDArray[np.int8]) -> str:
    return hashlib.sha256(sides.tobytes()).hexdigest()


def _split(contents: Sequence[Mapping[str, int]], sides: NDArray[np.int8]) -> Split:
    """Return the split from its parts, or raise a `ValueError`."""
    parts, first = [], 0
    for content in contents:
        own = sides[first : first + content["documents"]]
        parts.append(Split(own, content["characters"], content["cut_at"], content["slack"]))
        first += content["documents"]
    if first != len(sides) or any(len(part.sides) == 0 for part in parts):
        raise ValueError("the split is incomplete")
    return parts[0] if len(parts) == 1 else Split.joined(parts)


def _side(content: Mapping[str, Any]) -> SideState:
    shards = tuple(Shard(**shard) for shard in content["shards"])
    return SideState(shards, Shard(**content["open"]), bool(content["begun"]), Counts(**content["counts"]))
