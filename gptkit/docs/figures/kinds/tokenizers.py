"""Tokenizers: a sentence in pieces."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from gptkit.core.atomic import write_text
from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.chips import Chips
from gptkit.docs.figures.figure import Figure
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.testing import instances
from gptkit.testing.texts import CORPUS

__all__ = ["draw"]

SENTENCE = "The ferryman could read the water; seven sheep waited there."


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the tokens of a sentence, each with its id."""
    tokenizer = _fitted(cls, registry)
    ids = tokenizer.encode(SENTENCE)
    pieces = [(tokenizer.token_bytes(token).decode("utf-8", errors="replace"), str(token)) for token in ids]
    described = f"{len(ids)} tokens: {' | '.join(piece for piece, _ in pieces)}"
    chips = Chips("a sentence in tokens", pieces, described)
    vocabulary = f"{tokenizer.vocab_size:,} ids"
    return Figure([chips], f"{len(ids)} tokens for {len(SENTENCE)} characters, with their ids. Vocabulary: {vocabulary}.")


def _fitted(cls: type[Component], registry: Registry) -> Tokenizer:
    specs = instances(cls, registry)
    if specs:
        return cast("TokenizerSpec", specs[0]).fit(iter(CORPUS * 3))
    # A tokenizer that reads a file is given one: that of a byte-pair encoding trained on the same text.
    bpe = registry.component("tokenizer", "bpe")
    trained = cast("TokenizerSpec", bpe.model_validate({"name": "bpe"}, context={"registry": registry})).fit(
        iter(CORPUS * 3)
    )
    with tempfile.TemporaryDirectory() as directory:
        write_text(Path(directory, "tokenizer.json"), trained.to_tokenizer_json())
        needed = [name for name, info in cls.model_fields.items() if info.is_required()]
        fields = {"name": cls.component_name(), **dict.fromkeys(needed, directory)}
        spec = cast("TokenizerSpec", cls.model_validate(fields, context={"registry": registry}))
        return spec.fit(iter(()))
