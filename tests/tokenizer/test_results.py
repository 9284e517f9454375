"""Results of tokenizer specs that are not tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer


class ReturnsNothing(ByteSpec):
    """Tokenizer whose methods have no return statement."""

    name: Literal["returns-nothing"] = "returns-nothing"  # type: ignore[assignment]

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:  # type: ignore[empty-body]
        ...

    def load(self, directory: Path) -> Tokenizer:
        return {"vocab": 3}  # type: ignore[return-value]


def test_result_that_is_not_a_tokenizer_is_an_error_that_names_the_method(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"'returns-nothing': .*ReturnsNothing\.fit returned None, not a Tokenizer"):
        ReturnsNothing().fit(iter(()))
    with pytest.raises(TokenizerError, match=r"ReturnsNothing\.load returned a dict, not a Tokenizer"):
        ReturnsNothing().load(tmp_path)
