"""Number of bytes of text that tokens stand for, for bits per byte.

Shapes: B batch, N tokens, T tokens of a data window, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import DataError
from gptkit.data.files import TokenFile
from gptkit.data.index import Counts
from gptkit.data.windows import Windows
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["NO_TEXT", "bytes_of_text", "text_windows"]

NO_TEXT = -1
"""Number of bytes of a token that is not text: one between documents, or another special token."""


def text_windows(
    file: TokenFile, counts: Counts, context_length: int, tokenizer: Tokenizer, max_windows: int | None = None
) -> Windows | None:
    """Return the bytes of text of the targets of `ordered_windows`, as the targets of data windows of their own.

    Args:
        file: the tokens.
        counts: counts of the tokens, including whether decoding them restores the text.
        context_length: tokens of a data window.
        tokenizer: the tokenizer of the tokens.
        max_windows: maximum number of data windows, from the first; all by default.

    Returns:
        Data windows whose targets are numbers of bytes, `NO_TEXT` for a target that is not text. None if decoding the tokens
        does not restore the text, so that the loss is not that of its bytes.
    """
    if not (tokenizer.lossless or counts.restored):
        return None
    limit = None if max_windows is None else max_windows * context_length + 1
    return Windows(bytes_of_text(file, tokenizer, limit), context_length)


def bytes_of_text(file: TokenFile, tokenizer: Tokenizer, limit: int | None = None) -> NDArray[np.int32]:
    """Return the number of bytes of text of each token, and `NO_TEXT` for special tokens.

    The bytes of a document's tokens add up to those of its text: the space that some vocabularies put before the first word
    is not counted.

    Args:
        file: the tokens.
        tokenizer: their tokenizer.
        limit: maximum number of tokens, from the first; all by default.

    Raises:
        DataError: a token is not an id of the tokenizer: its file is damaged.
    """
    special = set(tokenizer.special_tokens.values())
    sizes_V = np.array(
        [NO_TEXT if token in special else len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)],
        dtype=np.int32,
    )
    tokens_N = file.tokens[:limit]
    if len(tokens_N) and int(tokens_N.max()) >= len(sizes_V):
        where = "" if file.directory is None else f"{file.directory}: "
        raise DataError(
            f"{where}the tokens are damaged: {int(tokens_N.max())} is not an id of the tokenizer's {len(sizes_V)}",
            hint="Prepare the corpus again; `gptkit data check` names the damaged files.",
        )
    bytes_N: NDArray[np.int32] = sizes_V[tokens_N]
    if tokenizer.leading:
        for start in file.starts[: np.searchsorted(file.starts, len(bytes_N))].tolist():
            first = next((at for at in (start, start + 1) if at < len(bytes_N) and bytes_N[at] != NO_TEXT), None)
            if first is not None and tokenizer.token_bytes(int(file.tokens[first])).startswith(tokenizer.leading):
                bytes_N[first] -= len(tokenizer.leading)
    return bytes_N
