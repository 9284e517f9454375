"""The tokenizer in a GGUF file's metadata: read as a tokenizer.json, and written from our tokenizers.

Normal tokens are spelled with one printable character a byte, special ones as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gptkit.components.tokenizer._bytes import BYTES
from gptkit.components.tokenizer._ranks import RankTokenizer
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.components.tokenizer.hugging_face import HuggingFaceTokenizer
from gptkit.errors import ForeignModelError
from gptkit.families.gguf.container import Typed
from gptkit.families.gguf.patterns import CUTS, cut_of_pattern, cut_of_stages
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.registry import did_you_mean

__all__ = ["Vocabulary", "read_vocabulary", "write_vocabulary"]

_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5
_SPELLED = {value: character for character, value in BYTES.items()}
_ELSE = "Name another tokenizer with --tokenizer, or import the model from its safetensors."


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as it is read.

    Attributes:
        data: the tokenizer.json.
        start, end: the special tokens put before and after a text.
        chat_template: the Jinja template that lays out a conversation.
    """

    data: bytes
    start: str | None
    end: str | None
    chat_template: str | None

    def unpack(self, folder: str, final: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write it to a folder, as the hub has tokenizers.

        Args:
            folder: where to.
            final: where it will lie.

        Returns:
            The tokenizer as a spec has it, from `final`; and what to change in that to read it from `folder`.
        """
        Path(folder, "tokenizer.json").write_bytes(self.data)
        if self.chat_template is not None:
            Path(folder, "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        ends = {"start_token": self.start or "", "end_token": self.end or ""}
        return {"name": "hugging-face", "path": str(final.resolve()), **ends}, {"path": folder}


def read_vocabulary(metadata: Mapping[str, Any], place: str) -> Vocabulary:
    """The tokenizer of a file.

    Raises:
        ForeignModelError: it has none, or one that gptkit does not read.
    """
    if "tokenizer.ggml.model" not in metadata:
        raise ForeignModelError(f"{place} has no tokenizer", hint="Name one: --tokenizer byte, say.")
    model, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre", "default")
    if model != "gpt2":
        raise ForeignModelError(
            f"{place}: tokenizer.ggml.model is {model!r}, and only byte-level pair encoding ('gpt2') is read", hint=_ELSE
        )
    if not isinstance(pre, str) or pre not in CUTS:
        what = did_you_mean(str(pre), sorted(CUTS), label="known are")
        raise ForeignModelError(
            f"{place}: tokenizer.ggml.pre is {pre!r}, a way to cut texts not known here; {what}", hint=_ELSE
        )
    tokens = _texts(metadata, "tokenizer.ggml.tokens", place)
    types = metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if len(set(tokens)) != len(tokens) or not isinstance(types, list) or len(types) != len(tokens):
        raise ForeignModelError(f"{place}: its tokens are not all different, or have not one type each")
    vocab = {token: number for number, token in enumerate(tokens) if types[number] != _UNUSED}
    merges = [tuple(merge.split(" ")) for merge in _texts(metadata, "tokenizer.ggml.merges", place)]
    if any(len(merge) != 2 or any(part not in vocab for part in (*merge, "".join(merge))) for merge in merges):
        raise ForeignModelError(f"{place}: tokenizer.ggml.merges has a merge that is not of two tokens to a third")
    added = [
        _added(number, token, types[number]) for number, token in enumerate(tokens) if types[number] in (_CONTROL, _USER)
    ]
    cut = CUTS[pre]
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(cut.stages)},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "ignore_merges": cut.whole, "vocab": vocab, "merges": merges},
    }
    puts_first = metadata.get("tokenizer.ggml.add_bos_token", cut.whole) is True
    template = metadata.get("tokenizer.chat_template")
    return Vocabulary(
        json.dumps(data, ensure_ascii=False).encode(),
        _named(metadata, "tokenizer.ggml.bos_token_id", tokens, place) if puts_first else None,
        _named(metadata, "tokenizer.ggml.eos_token_id", tokens, place),
        template if isinstance(template, str) else None,
    )


def _texts(metadata: Mapping[str, Any], key: str, place: str) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ForeignModelError(f"{place}: {key} is no list of texts")
    return found


def _named(metadata: Mapping[str, Any], key: str, tokens: list[str], place: str) -> str | None:
    number = metadata.get(key)
    if number is None:
        return None
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise ForeignModelError(f"{place}: {key} is {number!r}, and there are {len(tokens)} tokens")
    return tokens[number]


def _added(number: int, token: str, kind: int) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **plain, "special": kind == _CONTROL}


def write_vocabulary(tokenizer: Tokenizer, n_rows: int) -> dict[str, Typed]:
    """The metadata for one of our tokenizers.

    Args:
        tokenizer: `bpe`, `tiktoken`, `byte`, or a byte-level `hugging-face`.
        n_rows: rows of the embedding; ids beyond the tokenizer's are written as unused.

    Raises:
        ForeignModelError: llama.cpp cannot express it; says why.
    """
    if tokenizer.end_id is None:
        # llama.cpp takes the token 11 for the end where a file names none.
        _refuse("it has no token that ends a text, without which llama.cpp takes an ordinary one for it")
    literals: frozenset[int] = frozenset()
    if isinstance(tokenizer, HuggingFaceTokenizer):
        cut, merges, literals = _published(tokenizer)
    elif isinstance(tokenizer, RankTokenizer):
        cut, merges = _ranked(tokenizer)
    elif isinstance(tokenizer, ByteTokenizer):
        cut, merges = "gpt-2", []
    else:
        _refuse("its tokens are not made by merging bytes")
    specials = {number: text for text, number in tokenizer.special_tokens.items()}
    tokens, types = [], []
    for number in range(n_rows):
        data = tokenizer.token_bytes(number) if number < tokenizer.vocab_size else b""
        if number in specials:
            tokens.append(specials[number])
            types.append(_CONTROL)
        elif number in literals:
            tokens.append(data.decode())
            types.append(_USER)
        else:
            tokens.append(_spell(data) or f"[PAD{number}]")
            types.append(_NORMAL if data else _UNUSED)
    if len(set(tokens)) < len(tokens):
        _refuse("two of its ids have one text")
    start, template = tokenizer.start_id, getattr(tokenizer, "chat_template", None)
    return {
        "tokenizer.ggml.model": Typed("string", "gpt2"),
        "tokenizer.ggml.pre": Typed("string", cut),
        "tokenizer.ggml.tokens": Typed("strings", tokens),
        "tokenizer.ggml.token_type": Typed("i32s", types),
        "tokenizer.ggml.merges": Typed("strings", merges),
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
    merges = []
    for token in sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__):
        # Any two tokens that make this one are merged when its turn comes.
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [
            (tokenizer.ranks[a], tokenizer.ranks[b], a, b) for a, b in pairs if a in tokenizer.ranks and b in tokenizer.ranks
        ]
        merges += [f"{_spell(left)} {_spell(right)}" for *_, left, right in sorted(known)]
    return cut, merges


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
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    literals = frozenset(entry["id"] for entry in found.get("added_tokens", ()) if not entry.get("special"))
    return cut, merges, literals


def _spell(data: bytes) -> str:
    return "".join(_SPELLED[value] for value in data)


def _refuse(why: str) -> NoReturn:
    raise ForeignModelError(f"the tokenizer cannot be written to GGUF: {why}", hint="Export to hugging-face instead.")
