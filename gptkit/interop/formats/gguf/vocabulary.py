"""The tokenizer in a GGUF file's metadata, read as a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.patterns import CUTS
from gptkit.kinds.format import ExternalTokenizer

__all__ = ["CONTROL", "NORMAL", "UNKNOWN", "UNUSED", "USER", "read_vocabulary", "sentence_pieces"]

NORMAL, UNKNOWN, CONTROL, USER, UNUSED = 1, 2, 3, 4, 5
"""Values of `tokenizer.ggml.token_type`."""
_SPACE, _LONGEST_PIECE = "▁", 256
_ELSE = "Give the model's own tokenizer.json with --tokenizer PATH, or import the model from its safetensors."


def read_vocabulary(metadata: Mapping[str, Any], place: str) -> ExternalTokenizer:
    """Return the tokenizer of a file, as the files of a `hugging-face` one.

    Raises:
        ExternalModelError: the file has no tokenizer, or one that gptkit does not read.
    """
    if "tokenizer.ggml.model" not in metadata:
        raise ExternalModelError(f"{place} has no tokenizer", hint="Choose one, for example --tokenizer byte.")
    model = metadata["tokenizer.ggml.model"]
    tokens = _texts(metadata, "tokenizer.ggml.tokens", place)
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if len(set(tokens)) != len(tokens) or not isinstance(types, list) or len(types) != len(tokens):
        raise ExternalModelError(f"{place}: its tokens are not all different, or have not one type each")
    vocab = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    if model == "gpt2":
        stages, defaults = _byte_level(metadata, vocab, place), _Defaults()
    elif model == "llama":
        stages, defaults = sentence_pieces(metadata, vocab, tokens, place), _Defaults(1, 2, puts_first=True)
    else:
        raise ExternalModelError(
            f"{place}: tokenizer.ggml.model is {model!r}, and only byte-level pair encoding ('gpt2') and SentencePiece's "
            "('llama') are read",
            hint=_ELSE,
        )
    special = (CONTROL, USER, UNKNOWN)
    added = [_added(number, token, types[number]) for number, token in enumerate(tokens) if types[number] in special]
    data = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None, **stages}
    pre = metadata.get("tokenizer.ggml.pre")
    whole = isinstance(pre, str) and pre in CUTS and CUTS[pre].whole
    puts_first = metadata.get("tokenizer.ggml.add_bos_token", defaults.puts_first or whole) is True
    template = metadata.get("tokenizer.chat_template")
    start = _named(metadata, "tokenizer.ggml.bos_token_id", tokens, place, defaults.start) if puts_first else None
    end = _named(metadata, "tokenizer.ggml.eos_token_id", tokens, place, defaults.end)
    files = {"tokenizer.json": json.dumps(data, ensure_ascii=False).encode()}
    if isinstance(template, str):
        files["chat_template.jinja"] = template.encode(errors="replace")
    return ExternalTokenizer({"name": "hugging-face", "start_token": start or "", "end_token": end or ""}, files)


class _Defaults(NamedTuple):
    """Defaults of llama.cpp for keys that a file does not have."""

    start: int | None = None
    end: int | None = None
    puts_first: bool = False


def _byte_level(metadata: Mapping[str, Any], vocab: Mapping[str, int], place: str) -> dict[str, Any]:
    """The stages of a tokenizer.json for a byte-level pair encoding."""
    pre = metadata.get("tokenizer.ggml.pre")
    if pre is None:
        raise ExternalModelError(
            f"{place}: tokenizer.ggml.pre is missing, so the file does not say how texts are split; old converters omit it",
            hint="Give the model's own tokenizer.json with --tokenizer PATH, or convert the model again with a current "
            "llama.cpp.",
        )
    if not isinstance(pre, str) or pre not in CUTS:
        # No closest match: a method of a similar name splits texts otherwise, into tokens that the model does not expect.
        raise ExternalModelError(
            f"{place}: tokenizer.ggml.pre is {pre!r}, a method of splitting texts that gptkit does not support, "
            f"only {', '.join(sorted(CUTS))}",
            hint=_ELSE,
        )
    merges = [tuple(merge.split(" ")) for merge in _texts(metadata, "tokenizer.ggml.merges", place)]
    if any(len(merge) != 2 or any(part not in vocab for part in (*merge, "".join(merge))) for merge in merges):
        raise ExternalModelError(f"{place}: tokenizer.ggml.merges has a merge that is not of two tokens to a third")
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(CUTS[pre].stages)},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "ignore_merges": CUTS[pre].whole, "vocab": vocab, "merges": merges},
    }


def sentence_pieces(metadata: Mapping[str, Any], vocab: Mapping[str, int], tokens: list[str], place: str) -> dict[str, Any]:
    """The stages of a tokenizer.json for SentencePiece's pair encoding: the pair with the best score is merged first."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens) or not all(isinstance(score, float) for score in scores):
        raise ExternalModelError(f"{place}: tokenizer.ggml.scores is not a list with a score for each token")
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        raise ExternalModelError(f"{place}: tokenizer.ggml.unknown_token_id is {unknown!r}")
    result = []
    for token, number in vocab.items():
        if len(token) > _LONGEST_PIECE:
            continue
        pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
        result += [(-scores[number], number, vocab[a], vocab[b], (a, b)) for a, b in pairs if a in vocab and b in vocab]
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    words = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoders = [words, {"type": "ByteFallback"}, {"type": "Fuse"}, *([strip] if prefix else [])]
    normalizers = [*([{"type": "Prepend", "prepend": _SPACE}] if prefix else []), spaces]
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "unk_token": tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [pair for *_, pair in sorted(result)],
        },
    }


def _texts(metadata: Mapping[str, Any], key: str, place: str) -> list[str]:
    result = metadata.get(key)
    if not isinstance(result, list) or not all(isinstance(text, str) for text in result):
        raise ExternalModelError(f"{place}: {key} is not a list of strings")
    return result


def _named(metadata: Mapping[str, Any], key: str, tokens: list[str], place: str, default: int | None) -> str | None:
    number = metadata.get(key, default)
    if number is None:
        return None
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise ExternalModelError(f"{place}: {key} is {number!r}, and there are {len(tokens)} tokens")
    return tokens[number]


def _added(number: int, token: str, kind: int) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **plain, "special": kind != USER}
