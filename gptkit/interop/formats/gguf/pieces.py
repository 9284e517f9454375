"""SentencePiece's pair encodings as GGUF metadata: the pair whose token has the best score is merged first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gptkit.core.errors import TokenizerError
from gptkit.interop.formats.gguf.container import Typed
from gptkit.interop.formats.gguf.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER, sentence_pieces
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["piece_stages", "write_pieces"]

_BYTE = 6
"""Value of `tokenizer.ggml.token_type` of the token of a byte."""

Stages = Mapping[str, Any]


def piece_stages(tokenizer: Tokenizer) -> Stages | None:
    """Return the tokenizer.json of a pair encoding of characters that falls back to bytes; None for other tokenizers."""
    try:
        stages: Stages = json.loads(tokenizer.to_tokenizer_json())
    except TokenizerError:
        return None
    model = stages["model"]
    return stages if model.get("type") == "BPE" and model.get("byte_fallback") is True else None


def write_pieces(stages: Stages, n_rows: int) -> dict[str, Typed]:
    """Return the metadata of the vocabulary.

    The file has a score for each token instead of a list of merges. Scores follow the order in which the tokenizer merges.

    Args:
        stages: the tokenizer.json.
        n_rows: rows of the embedding; ids without a token are written as unused.

    Raises:
        TokenizerError: llama.cpp would encode texts differently; the message gives the reason.
    """
    model = stages["model"]
    vocab: Mapping[str, int] = model["vocab"]
    special = {entry["id"]: bool(entry.get("special")) for entry in stages.get("added_tokens", ())}
    names = {number: token for token, number in vocab.items()}
    names |= {entry["id"]: entry["content"] for entry in stages.get("added_tokens", ())}
    byte_tokens = {f"<0x{value:02X}>" for value in range(256)}
    if not byte_tokens <= vocab.keys():
        raise TokenizerError("it has no token for some byte")
    if model.get("unk_token") not in vocab:
        raise TokenizerError("it has no token for unknown characters")
    groups = _groups(model["merges"])
    if len({token for token, _ in groups}) < len(groups):
        raise TokenizerError("it merges pairs to one token at several places of its order, and a score is one place")
    scores = {token: -float(place) for place, (token, _) in enumerate(groups)}

    def kind(number: int) -> int:
        token = names.get(number)
        if token is None:
            return UNUSED
        if token == model["unk_token"]:
            return UNKNOWN
        if number in special:
            return CONTROL if special[number] else USER
        return _BYTE if token in byte_tokens else NORMAL

    tokens = [names.get(number, f"[PAD{number}]") for number in range(n_rows)]
    metadata = {
        "tokenizer.ggml.model": Typed("string", "llama"),
        "tokenizer.ggml.pre": Typed("string", "default"),
        "tokenizer.ggml.tokens": Typed("strings", tokens),
        "tokenizer.ggml.token_type": Typed("i32s", [kind(number) for number in range(n_rows)]),
        "tokenizer.ggml.scores": Typed("f32s", [scores.get(token, -float(len(groups))) for token in tokens]),
        "tokenizer.ggml.unknown_token_id": Typed("u32", vocab[model["unk_token"]]),
        "tokenizer.ggml.add_space_prefix": Typed("bool", "Prepend" in json.dumps(stages["normalizer"])),
    }
    _require_same(stages, metadata, vocab, tokens)
    return metadata


def _require_same(stages: Stages, metadata: Mapping[str, Typed], vocab: Mapping[str, int], tokens: list[str]) -> None:
    """Check that what would be read from the file encodes texts as the tokenizer does."""
    back = sentence_pieces({key: typed.value for key, typed in metadata.items()}, vocab, tokens, "the file")
    for part, what in (("normalizer", "changes texts"), ("pre_tokenizer", "splits texts"), ("decoder", "decodes tokens")):
        if stages.get(part) != back[part]:
            raise TokenizerError(f"it {what} in another way than SentencePiece")
    for field in ("unk_token", "fuse_unk"):
        if stages["model"].get(field) != back["model"][field]:
            raise TokenizerError("it treats unknown characters in another way than SentencePiece")
    if stages["model"].get("ignore_merges") or _groups(stages["model"]["merges"]) != _groups(back["model"]["merges"]):
        raise TokenizerError("it does not merge all pairs of tokens whose text is a token")


def _groups(merges: Sequence[Any]) -> list[tuple[str, frozenset[tuple[str, str]]]]:
    """Return the pairs that are merged to each token, in their order; pairs of one token have the same score."""
    # Older files write a pair as one string.
    pairs = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in merges]
    return [(token, frozenset(group)) for token, group in groupby(pairs, key="".join)]
