"""Small deterministic model and tokenizer with correct caches and padding.

Shapes: B batch, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.kinds.tokenizer import Tokenizer


class Bytes(Tokenizer):
    """Tokenizer with one token per byte, then the given multi-byte tokens, then the end token."""

    def __init__(self, extra: Sequence[bytes] = (), *, has_end: bool = True) -> None:
        self._tokens = [bytes([value]) for value in range(256)] + list(extra)
        self._end = len(self._tokens) if has_end else None

    @property
    def vocab_size(self) -> int:
        return len(self._tokens) + (self._end is not None)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return {} if self._end is None else {"<|end|>": self._end}

    @property
    def end_id(self) -> int | None:
        return self._end

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return b"<|end|>" if token == self._end else self._tokens[token]

    def save(self, directory: Path) -> None:
        raise NotImplementedError


class Few(Bytes):
    """Tokenizer with four tokens: a, b, c and the end token."""

    vocab_size = 4
    end_id = 3

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def token_bytes(self, token: int) -> bytes:
        return bytes([token + ord("a")])


class FakeCache:
    def __init__(self, batch: int, capacity: int, left_padding_B: Tensor | None) -> None:
        self.batch, self.capacity, self.left_padding_B = batch, capacity, left_padding_B
        self.length = 0
        self.state_BE: Tensor | None = None
        self.reordered: list[list[int]] = []

    def reorder(self, rows_B: Tensor) -> None:
        self.reordered.append(rows_B.tolist())
        assert self.state_BE is not None
        self.state_BE = self.state_BE[rows_B]
        self.left_padding_B = None if self.left_padding_B is None else self.left_padding_B[rows_B]
        self.batch = len(rows_B)

    def join(self, other: FakeCache, capacity: int) -> None:
        length = max(self.length, other.length)
        assert length < capacity
        starts = []
        for cache in (self, other):
            own_B = torch.zeros(cache.batch, dtype=torch.long) if cache.left_padding_B is None else cache.left_padding_B
            starts.append(own_B + length - cache.length)
        assert self.state_BE is not None
        assert other.state_BE is not None
        self.state_BE = torch.cat((self.state_BE, other.state_BE))
        self.left_padding_B = torch.cat(starts)
        self.length, self.capacity, self.batch = length, capacity, self.batch + other.batch


class Recurrent(nn.Module):
    """h ← tanh(h R + E[id]) from zero at the first real token; logits = h W. Chaotic, so that its texts do not repeat."""

    def __init__(self, vocab_size: int = 257, context_length: int = 16, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vocab_size, self.context_length = vocab_size, context_length
        self.table_VE = nn.Parameter(torch.randn(vocab_size, 16, generator=generator))
        self.recurrence_EE = nn.Parameter(torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q * 2)
        self.head_EV = nn.Parameter(torch.randn(16, vocab_size, generator=generator) * scale)
        self.caches: list[FakeCache] = []
        self.calls: list[tuple[int, int]] = []
        self.modes: list[bool] = []

    @property
    def device(self) -> torch.device:
        return self.table_VE.device

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> FakeCache:
        assert capacity is None or capacity <= self.context_length
        self.caches.append(FakeCache(batch, capacity or self.context_length, left_padding_B))
        return self.caches[-1]

    def forward(self, ids_BT: Tensor, *, cache: FakeCache | None = None, last_only: bool = False) -> Any:
        batch, n_tokens = ids_BT.shape
        self.calls.append((batch, n_tokens))
        self.modes.append(self.training)
        if cache is None:
            cache = FakeCache(batch, self.context_length, None)
        assert cache.batch == batch
        assert cache.length + n_tokens <= cache.capacity, "the cache is full"
        state_BE = torch.zeros(batch, 16) if cache.state_BE is None else cache.state_BE
        states = []
        for at in range(n_tokens):
            state_BE = torch.tanh(state_BE @ self.recurrence_EE + self.table_VE[ids_BT[:, at]])
            if cache.left_padding_B is not None:
                state_BE = torch.where((cache.length + at < cache.left_padding_B)[:, None], 0.0, state_BE)
            states.append(state_BE)
        cache.state_BE = state_BE
        cache.length += n_tokens
        h_BTE = torch.stack(states, dim=1)
        return SimpleNamespace(logits=(h_BTE[:, -1:] if last_only else h_BTE) @ self.head_EV)


class Scripted(nn.Module):
    """Model that generates a given list of tokens after any prompt: in the n-th call, the n-th token of every script."""

    def __init__(self, scripts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().__init__()
        self.scripts = [list(script) for script in scripts]
        self.vocab_size, self.context_length, self.device = vocab_size, 1000, torch.device("cpu")
        self.at = 0

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> FakeCache:
        return FakeCache(batch, capacity or 1000, left_padding_B)

    def forward(self, ids_BT: Tensor, *, cache: FakeCache, last_only: bool = False) -> Any:
        if cache.state_BE is None:
            cache.state_BE = torch.arange(len(self.scripts))
        logits = torch.zeros(ids_BT.shape[0], 1, self.vocab_size)
        for row, script in enumerate(cache.state_BE.tolist()):
            logits[row, 0, self.scripts[script][min(self.at, len(self.scripts[script]) - 1)]] = 50.0
        self.at += 1
        cache.length += ids_BT.shape[1]
        return SimpleNamespace(logits=logits)
