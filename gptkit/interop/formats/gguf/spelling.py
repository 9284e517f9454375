"""The GGUF metadata of a tokenizer.

Tokens of byte-level encodings are spelled with one printable character per byte, special tokens as they are.
"""

from __future__ import annotations

from typing import NoReturn

from gptkit.core.errors import ExternalModelError, TokenizerError
from gptkit.interop.formats.gguf.container import Typed
from gptkit.interop.formats.gguf.patterns import cut_of
from gptkit.interop.formats.gguf.pieces import piece_stages, write_pieces
from gptkit.interop.formats.gguf.vocabulary import CONTROL, NORMAL, UNUSED, USER
from gptkit.kinds.tokenizer import BytePairs, Tokenizer
from gptkit.text.bytes import spell

__all__ = ["write_vocabulary"]


def write_vocabulary(tokenizer: Tokenizer, n_rows: int, start_id: int | None = None) -> dict[str, Typed]:
    """Return the metadata for a tokenizer.

    Args:
        tokenizer: one that is a byte-level pair encoding (`Tokenizer.byte_pairs`), or SentencePiece's.
        n_rows: rows of the embedding; ids beyond the tokenizer's are written as unused.
        start_id: the start token of a model whose texts do not begin with it (`NativeModel.start_id`).

    Raises:
        ExternalModelError: llama.cpp cannot express the tokenizer; gives the reason.
    """
    if tokenizer.end_id is None:
        # llama.cpp uses token 11 as the end token where a file names none.
        _refuse("it has no token that ends a text, and llama.cpp would use an ordinary one instead")
    try:
        own = _byte_level(tokenizer, tokenizer.byte_pairs(), n_rows)
    except TokenizerError as error:
        own = _pieces(tokenizer, n_rows, error)
    start, template = tokenizer.start_id, tokenizer.chat_template
    first = next(each for each in (start, start_id, tokenizer.end_id) if each is not None and each < n_rows)
    return {
        **own,
        "tokenizer.ggml.bos_token_id": Typed("u32", first),
        "tokenizer.ggml.eos_token_id": Typed("u32", tokenizer.end_id),
        "tokenizer.ggml.add_bos_token": Typed("bool", start is not None),
        "tokenizer.ggml.add_eos_token": Typed("bool", False),
        **({"tokenizer.chat_template": Typed("string", template)} if template else {}),
    }


def _pieces(tokenizer: Tokenizer, n_rows: int, refusal: TokenizerError) -> dict[str, Typed]:
    """Return the metadata of a vocabulary that is not a byte-level one, as `refusal` says."""
    stages = piece_stages(tokenizer)
    if stages is None:
        _refuse(refusal.message)
    try:
        return write_pieces(stages, n_rows)
    except TokenizerError as error:
        _refuse(error.message)


def _byte_level(tokenizer: Tokenizer, pairs: BytePairs, n_rows: int) -> dict[str, Typed]:
    """Return the metadata of a byte-level vocabulary."""
    cut = cut_of(pairs)
    if cut is None:
        what = f"by the pattern {pairs.split!r}" if isinstance(pairs.split, str) else "as its pre-tokenizer does"
        _refuse(f"llama.cpp cannot split texts {what}")
    specials = {number: text for text, number in tokenizer.special_tokens.items()}
    tokens, types = [], []
    for number in range(n_rows):
        data = tokenizer.token_bytes(number) if number < tokenizer.vocab_size else b""
        if number in specials:
            tokens.append(specials[number])
            types.append(CONTROL)
        elif number in pairs.literals:
            tokens.append(data.decode())
            types.append(USER)
        else:
            tokens.append(spell(data) or f"[PAD{number}]")
            types.append(NORMAL if data else UNUSED)
    if len(set(tokens)) < len(tokens):
        _refuse("two of its ids have the same text")
    return {
        "tokenizer.ggml.model": Typed("string", "gpt2"),
        "tokenizer.ggml.pre": Typed("string", cut),
        "tokenizer.ggml.tokens": Typed("strings", tokens),
        "tokenizer.ggml.token_type": Typed("i32s", types),
        "tokenizer.ggml.merges": Typed("strings", [f"{left} {right}" for left, right in pairs.merges]),
        "tokenizer.ggml.add_space_prefix": Typed("bool", False),
    }


def _refuse(why: str) -> NoReturn:
    raise ExternalModelError(f"the tokenizer cannot be written to GGUF: {why}", hint="Export to hugging-face instead.")
