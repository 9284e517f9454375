"""Tokens prepared by `gptkit data prepare`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gptkit.core.errors import DataError
from gptkit.core.paths import expand_home
from gptkit.kinds.data import DataSpec, Document
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

if TYPE_CHECKING:
    from gptkit.data.files import TokenFile


class PreparedDataSpec(DataSpec):
    """Tokens prepared by `gptkit data prepare`, which are used without the texts, on another machine for example.

    The spec must have the tokenizer that the tokens were prepared with. The split is that of the preparation, so
    `validation` has no effect.
    """

    name: Literal["prepared"] = "prepared"
    path: str = Field(min_length=1, description="The directory of the tokens.")

    def token_directory(self, base: Path) -> Path:
        return base / expand_home(self.path, "data.path")

    def documents(self, base: Path) -> Iterator[Document]:
        from gptkit.data.index import TOKENIZER
        from gptkit.data.prepared import open_prepared

        prepared = open_prepared(self.token_directory(base))
        if prepared.index.tokenizer_spec is None:
            raise DataError(f"{prepared.directory}: the tokenizer of these tokens is not stored, so they cannot be decoded")
        spec = TokenizerSpec.model_validate(prepared.index.tokenizer_spec)
        tokenizer = spec.load(prepared.directory / TOKENIZER)
        for side, file in (("train", prepared.train), ("validation", prepared.validation)):
            for number, text in enumerate(_texts(file, tokenizer), start=1):
                yield Document(text, f"{self.path}: {side} document {number}")

    def fingerprint(self, base: Path) -> str:
        from gptkit.data.prepared import open_prepared

        return open_prepared(self.token_directory(base)).fingerprint


def _texts(file: TokenFile, tokenizer: Tokenizer) -> Iterator[str]:
    ends = [*file.starts[1:].tolist(), len(file.tokens)]
    for first, end in zip(file.starts.tolist(), ends, strict=True):
        ids = file.tokens[first:end].tolist()
        ids = ids[1:] if ids and tokenizer.start_id not in (None, tokenizer.end_id) and ids[0] == tokenizer.start_id else ids
        ids = ids[:-1] if ids and ids[-1] == tokenizer.end_id else ids
        text = tokenizer.decode(ids)
        if text:
            yield text
