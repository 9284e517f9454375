"""Description of prepared tokens as plain data, for `gptkit data show`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import GptkitError
from gptkit.data.files import TokenFile
from gptkit.data.index import TOKENIZER, Counts
from gptkit.data.packing import pack
from gptkit.data.prepared import Prepared
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

__all__ = ["describe"]

_LONGEST = 5
_SHOWN = 60


def describe(prepared: Prepared, window: int) -> dict[str, Any]:
    """Return sizes, shards, the longest documents, and what packing the training documents would waste.

    Args:
        prepared: the tokens.
        window: number of tokens of a data window.
    """
    content: dict[str, Any] = {"directory": str(prepared.directory), "fingerprint": prepared.fingerprint}
    content["vocab_size"], content["format"] = prepared.vocab_size, prepared.index.format
    for side, file in (("train", prepared.train), ("validation", prepared.validation)):
        counts = prepared.index.counts("train" if side == "train" else "validation")
        content[side] = _side(file, counts, len(prepared.index.shards[side]) or None)
    packing = pack(prepared.train.starts, len(prepared.train.tokens), window)
    n_windows = len(packing.first_W) - 1
    content["packing"] = None
    if n_windows:
        padding = 1 - int(packing.lengths_P.sum()) / (n_windows * window)
        content["packing"] = {
            "window": window,
            "windows": n_windows,
            "padding": padding,
            "documents_cut": packing.n_cut,
        }
    content["longest"] = _longest(prepared)
    return content


def _side(file: TokenFile, counts: Counts, n_shards: int | None) -> dict[str, Any]:
    lengths = _lengths(file)
    return {
        "tokens": counts.tokens,
        "documents": counts.documents,
        "characters": counts.characters,
        "bytes": counts.bytes,
        "shards": n_shards,
        "bytes_per_token": counts.bytes / counts.tokens if counts.tokens else None,
        "masked": counts.masked / counts.tokens if counts.tokens else None,
        "mean_document": float(lengths.mean()) if len(lengths) else None,
        "longest_document": int(lengths.max()) if len(lengths) else None,
    }


def _lengths(file: TokenFile) -> NDArray[np.int64]:
    """Return the number of tokens of each document."""
    return np.diff(file.starts, append=len(file.tokens))


def _longest(prepared: Prepared) -> list[dict[str, Any]]:
    """Return the longest training documents, with the beginning of their text if the tokenizer is stored."""
    file, lengths = prepared.train, _lengths(prepared.train)
    tokenizer = _tokenizer(prepared)
    result = []
    for index in np.argsort(-lengths, kind="stable")[:_LONGEST].tolist():
        first, length = int(file.starts[index]), int(lengths[index])
        text = ""
        if tokenizer is not None:
            text = " ".join(tokenizer.decode(file.tokens[first : first + min(length, _SHOWN)].tolist()).split())[:_SHOWN]
        result.append({"document": index, "tokens": length, "text": text})
    return result


def _tokenizer(prepared: Prepared) -> Tokenizer | None:
    try:
        if prepared.index.tokenizer_spec is None:
            return None
        spec = TokenizerSpec.model_validate(prepared.index.tokenizer_spec)
        return spec.load(prepared.directory / TOKENIZER)
    except (GptkitError, ValueError):  # of a plugin that is not installed, or damaged
        return None
