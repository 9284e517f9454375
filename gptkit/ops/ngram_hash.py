"""Rows of n-grams of token ids in tables of hashes: the last n ids of each token, mixed and reduced modulo a prime.

Shapes: B batch, T tokens, G ids of the longest n-gram, J tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ngram_multipliers", "ngram_rows", "padded_rows", "preceding_ids", "prime_sizes"]

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def _mixed(value: int) -> int:
    """Return a hash of 64 bits (SplitMix64, https://doi.org/10.1145/2714064.2660195)."""
    value = (value + _STEP) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def ngram_multipliers(n_ids: int, length: int, index: int, seed: int) -> list[int]:
    """Return an odd factor for each place of an n-gram, whose product with any id is less than 2^63.

    Args:
        n_ids: number of token ids.
        length: G.
        index: number of the layer among those with n-grams, so that each has a hash of its own.
        seed: of the hash.
    """
    half = max(1, (2**63 - 1) // max(n_ids, 1) // 2)
    first = seed + 10007 * index
    return [2 * (_mixed((first + _STEP * (place + 1)) & _MASK) % half) + 1 for place in range(length)]


def prime_sizes(least: int, skipped: int, count: int) -> list[int]:
    """Return `count` consecutive primes from `least` on, after the first `skipped` ones."""
    primes: list[int] = []
    value = max(2, least)
    while len(primes) < skipped + count:
        if all(value % divisor for divisor in range(2, math.isqrt(value) + 1)):
            primes.append(value)
        value += 1
    return primes[skipped:]


def padded_rows(least: int, skipped: int, count: int, multiple: int) -> int:
    """Return the number of rows of all tables of `prime_sizes`, padded to a multiple."""
    return -(-sum(prime_sizes(least, skipped, count)) // multiple) * multiple


def preceding_ids(ids_BT: Tensor, before_BG: Tensor, positions_BT: Tensor, boundary: int) -> list[Tensor]:
    """Return the ids i = 0 … G − 1 tokens before each token, G tensors (B, T).

    Args:
        ids_BT: the ids.
        before_BG: the G − 1 ids before them.
        positions_BT: positions from the first token of the row or document on, (T,) or (B, T); negative for padding.
        boundary: the id that stands for tokens before the first one, and for all before a token with this id.
    """
    length = before_BG.shape[1] + 1
    joined_BS = torch.cat((before_BG, ids_BT), dim=1)
    result = [ids_BT]
    for back in range(1, length):
        seen_BT = joined_BS[:, length - 1 - back : joined_BS.shape[1] - back]
        within_BT = positions_BT >= back
        if back > 1:
            within_BT = within_BT & (result[-1] != boundary)
        result.append(torch.where(within_BT, seen_BT, boundary))
    return result


def ngram_rows(ids: Sequence[Tensor], multipliers_G: Tensor, sizes_J: Tensor, offsets_J: Tensor) -> Tensor:
    """Return the row of each n-gram, n = 2 … G, in each of its tables, (B, T, J).

    Row: offset + (id_0 · m_0 xor … xor id_{n−1} · m_{n−1}) mod size.

    Args:
        ids: the ids of `preceding_ids`.
        multipliers_G: m, whole numbers of 64 bits.
        sizes_J: rows of the tables, those of n = 2 first, as many for each n.
        offsets_J: the first row of each table.
    """
    n_tables = sizes_J.shape[0] // (len(ids) - 1)
    mixed_BT = ids[0] * multipliers_G[0]
    rows = []
    for place in range(1, len(ids)):
        mixed_BT = mixed_BT ^ (ids[place] * multipliers_G[place])
        own = slice((place - 1) * n_tables, place * n_tables)
        rows.append(mixed_BT[..., None] % sizes_J[own] + offsets_J[own])
    return torch.cat(rows, dim=-1)
