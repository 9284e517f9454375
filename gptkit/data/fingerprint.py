"""Fingerprints of tokenizers: whether prepared tokens can be reused."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["tokenizer_fingerprint"]

_PROBE = "The quick brown fox, 1234.5; naïve Ünïcode 日本語 🙂\n\n\tend <|endoftext|>"


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Return a fingerprint of the tokenizer's encoding: a hash of its saved files and of the ids of a sample."""
    kind = type(tokenizer)
    try:
        sample: Any = tokenizer.encode(_PROBE)
    except TokenizerError:
        sample = None
    facts = (f"{kind.__module__}.{kind.__qualname__}", tokenizer.vocab_size, tokenizer.start_id, tokenizer.end_id, sample)
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    with tempfile.TemporaryDirectory(prefix="gptkit-") as name:
        directory = Path(name)
        tokenizer.save(directory)
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            content = path.read_bytes()
            digest.update(f"\0{path.relative_to(directory).as_posix()} {len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
