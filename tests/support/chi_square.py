"""Chi-square test of generated tokens, each of which depends on the previous one only."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor

__all__ = ["assert_drawn_from"]


def assert_drawn_from(p_VV: Tensor, texts: Iterable[Sequence[int]], n_draws: int) -> None:
    """Check that the frequencies of each token after each other one are those of a table of probabilities.

    Args:
        p_VV: the probability of each token after each other one.
        texts: the token ids of each text, whose first one was given.
        n_draws: number of drawn tokens in all.
    """
    size = len(p_VV)
    pairs = Counter[tuple[int, int]]()
    for ids in texts:
        pairs += Counter(itertools.pairwise(ids))
    assert sum(pairs.values()) == n_draws
    statistic, freedom = 0.0, 0
    for last in range(size):
        n_rows = sum(pairs[last, token] for token in range(size))
        expected = [n_rows * float(p) for p in p_VV[last]]
        assert min(expected) > 5
        statistic += sum((pairs[last, token] - expected[token]) ** 2 / expected[token] for token in range(size))
        freedom += size - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)
