"""Our tokenizers as a GGUF file's metadata has them.

Normal tokens are spelled with one printable character a byte, special ones as they are.
"""

from __future__ import annotations

import json
from typing import NoReturn

from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.components.tokenizer.hugging_face import HuggingFaceTokenizer
from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.container import Typed
from gptkit.interop.formats.gguf.patterns import cut_of_pattern, cut_of_stages
from gptkit.interop.formats.gguf.vocabulary import CONTROL, NORMAL, UNUSED, USER
from gptkit.interop.merges import merges, spell
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.ranks import RankTokenizer

__all__ = ["write_vocabulary"]


def write_vocabulary(tokenizer: Tokenizer, n_rows: int) -> dict[str, Typed]:
    """The metadata for one of our tokenizers.

    Args:
        tokenizer: `bpe`, `tiktoken`, `byte`, or a byte-level `hugging-face`.
        n_rows: rows of the embedding; ids beyond the tokenizer's are written as unused.

    Raises:
        ExternalModelError: llama.cpp cannot express it; says why.
    """
    if tokenizer.end_id is None:
        # llama.cpp takes the token 11 for the end where a file names none.
        _refuse("it has no token that ends a text, without which llama.cpp takes an ordinary one for it")
    literals: frozenset[int] = frozenset()
    if isinstance(tokenizer, HuggingFaceTokenizer):
        cut, pairs, literals = _published(tokenizer)
    elif isinstance(tokenizer, RankTokenizer):
        cut, pairs = _ranked(tokenizer)
    elif isinstance(tokenizer, ByteTokenizer):
        cut, pairs = "gpt-2", []
    else:
        _refuse("its tokens are not made by merging bytes")
    specials = {number: text for text, number in tokenizer.special_tokens.items()}
    tokens, types = [], []
    for number in range(n_rows):
        data = tokenizer.token_bytes(number) if number < tokenizer.vocab_size else b""
        if number in specials:
            tokens.append(specials[number])
            types.append(CONTROL)
        elif number in literals:
            tokens.append(data.decode())
            types.append(USER)
        else:
            tokens.append(spell(data) or f"[PAD{number}]")
            types.append(NORMAL if data else UNUSED)
    if len(set(tokens)) < len(tokens):
        _refuse("two of its ids have one text")
    start, template = tokenizer.start_id, getattr(tokenizer, "chat_template", None)
    return {
        "tokenizer.ggml.model": Typed("string", "gpt2"),
        "tokenizer.ggml.pre": Typed("string", cut),
        "tokenizer.ggml.tokens": Typed("strings", tokens),
        "tokenizer.ggml.token_type": Typed("i32s", types),
        "tokenizer.ggml.merges": Typed("strings", pairs),
        "tokenizer.ggml.bos_token_id": Typed("u32", tokenizer.end_id if start is None else start),
        "tokenizer.ggml.eos_token_id": Typed("u32", tokenizer.end_id),
        "tokenizer.ggml.add_bos_token": Typed("bool", start is not None),
        "tokenizer.ggml.add_eos_token": Typed("bool", False),
        "tokenizer.ggml.add_space_prefix": Typed("bool", False),
        **({"tokenizer.chat_template": Typed("string", template)} if template else {}),
    }


def _ranked(tokenizer: RankTokenizer) -> tuple[str, list[str]]:
    cut = cut_of_pattern(tokenizer.pattern)
    if cut is None:
        _refuse(f"llama.cpp cannot cut texts by the pattern {tokenizer.pattern!r}")
    return cut, [f"{left} {right}" for left, right in merges(tokenizer.ranks)]


def _published(tokenizer: HuggingFaceTokenizer) -> tuple[str, list[str], frozenset[int]]:
    """How it cuts, its merges, and the ids of tokens that are found in texts as they are and are not special."""
    found = json.loads(tokenizer.data)
    model = found["model"]
    if model.get("type") != "BPE" or (not tokenizer.lossless and (found.get("decoder") or {}).get("type") != "ByteLevel"):
        _refuse("it is no byte-level pair encoding")
    # Composing characters, as Qwen's does, is what every converter leaves out.
    if (found.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        _refuse("it changes texts before it cuts them")
    cut = cut_of_stages(found.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    if cut is None:
        _refuse("llama.cpp has no such way to cut texts as its pre-tokenizer's")
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    literals = frozenset(entry["id"] for entry in found.get("added_tokens", ()) if not entry.get("special"))
    return cut, pairs, literals


def _refuse(why: str) -> NoReturn:
    raise ExternalModelError(f"the tokenizer cannot be written to GGUF: {why}", hint="Export to hugging-face instead.")
