"""Byte-pair encoding with tiktoken's core, shared by `bpe` and `tiktoken`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gptkit.core.atomic import write_bytes
from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import BytePairs
from gptkit.text.base import NumberedTokenizer, encode_in_threads, well_formed
from gptkit.text.byte_pairs import merges_of_ranks, tokenizer_json
from gptkit.text.bytes import spell
from gptkit.text.state import SavedState, damaged, format_ranks, parse_ranks, read_bytes, write_state

__all__ = ["RankTokenizer", "chunks"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")
RANKS_FILE = "ranks.tiktoken"
_LONGEST_RUN = 100_000
"""Longest run of whitespace, or of other characters, that is passed on unsplit.

The core's regular expressions backtrack character by character in a run of whitespace, and panic after about a million.
"""


def chunks(text: str, longest: int = _LONGEST_RUN) -> Iterator[str]:
    """Yield the text, split only inside runs of whitespace, or of other characters, longer than `longest`."""
    half = longest // 2
    # A run longer than `longest` covers one of these blocks completely; in other text, each test ends early.
    blocks = (text[at : at + half] for at in range(0, len(text) - half + 1, half))
    if not any(block.isspace() or not re.search(r"\s", block) for block in blocks):
        yield text
        return
    begin = 0
    # Matches begin only at the start of a run; otherwise a long run would be searched from each of its characters.
    for run in re.finditer(rf"(?<!\S)\S{{{longest + 1},}}|(?<!\s)\s{{{longest + 1},}}", text):
        for cut in range(run.start() + longest, run.end(), longest):
            yield text[begin:cut]
            begin = cut
    yield text[begin:]


class RankTokenizer(NumberedTokenizer):
    """Tokenizer that merges adjacent bytes by rank, lowest first, within the pieces matched by a regular expression.

    Args:
        name: name of the component, stored in saved files.
        pattern: the regular expression; every match is a piece.
        ranks: rank of every token, which is its id; includes all 256 bytes.
        specials: special tokens and their ids.
        start, end: special tokens added before and after a text.

    Raises:
        TokenizerError: the pattern is not a regular expression, or ranks and special tokens share ids.
    """

    def __init__(
        self,
        name: str,
        pattern: str,
        ranks: Mapping[bytes, int],
        specials: Mapping[str, int],
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        import tiktoken

        ids = [*ranks.values(), *specials.values()]
        if len(set(ids)) != len(ids):
            raise TokenizerError("two tokens share one id")
        if max(ids) >= 2 * len(ids) + 10_000:
            # A list is indexed by id: a damaged file must not make it huge.
            raise TokenizerError(f"the id {max(ids)} is too large for {len(ids)} tokens")
        tokens = [b""] * (max(ids) + 1)
        for token, rank in ranks.items():
            tokens[rank] = token
        for special, rank in specials.items():
            tokens[rank] = special.encode()
        super().__init__(tokens, specials, start, end)
        self.name, self.pattern, self.ranks = name, pattern, dict(ranks)
        try:
            self._core = tiktoken.Encoding(
                name, pat_str=pattern, mergeable_ranks=self.ranks, special_tokens=dict(self._specials)
            )
        except ValueError as error:
            raise TokenizerError(f"the pattern {pattern!r} is not a regular expression: {error}") from None

    def encode_ordinary(self, text: str) -> list[int]:
        parts = self._parts(text, self._core.encode_ordinary)
        return parts[0] if len(parts) == 1 else [token for part in parts for token in part]

    def encode_array(self, text: str) -> NDArray[np.integer[Any]]:
        import numpy as np

        parts = self._parts(well_formed(text), partial(self._core.encode_to_numpy, disallowed_special=()))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _parts(self, text: str, encode: Callable[[str], _T]) -> list[_T]:
        """Return the ids of the parts of a text that are passed on separately."""
        try:
            return [encode(part) for part in chunks(text)]
        except BaseException as error:
            # pyo3's PanicException is not a subclass of Exception, and cannot be imported.
            if type(error).__name__ != "PanicException":
                raise
            raise TokenizerError(
                f"the pattern {self.pattern!r} failed on a text of {len(text)} characters",
                hint="Use a pattern with less backtracking, or split the text.",
            ) from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return encode_in_threads(self, texts)

    def byte_pairs(self) -> BytePairs:
        vocabulary = {spell(token): rank for token, rank in self.ranks.items()}
        return BytePairs(vocabulary, merges_of_ranks(self.ranks), self.pattern)

    def to_tokenizer_json(self) -> str:
        return tokenizer_json(self.byte_pairs(), self._specials)

    def save(self, directory: Path) -> None:
        data = format_ranks(self.ranks)
        write_bytes(directory / RANKS_FILE, data)
        state = {"pattern": self.pattern, "special_ids": self._specials, "start": self.start, "end": self.end}
        write_state(directory, self.name, {**state, "ranks_sha256": hashlib.sha256(data).hexdigest()})

    @classmethod
    def load(cls, directory: Path, name: str) -> RankTokenizer:
        """Load a tokenizer saved by the component `name`.

        Raises:
            TokenizerError: a file is missing or damaged.
        """
        state = SavedState(directory, name)
        path = directory / RANKS_FILE
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != state.text("ranks_sha256"):
            raise damaged(path, "has changed since it was written: the checksum differs")
        specials, start, end = state.ids("special_ids"), state.optional_text("start"), state.optional_text("end")
        return cls(name, state.text("pattern"), parse_ranks(data, path), specials, start, end)
