"""Green lists of a watermark: a part of the vocabulary that is selected by the tokens before.

Shapes: V vocabulary, G green tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GreenLists", "Scheme"]

Scheme = Literal["lefthash", "selfhash"]
"""What selects the green list: the previous token, or the last tokens including the one that is judged."""

_TABLE_SIZE = 1_000_003


@cache
def _table(key: int) -> Tensor:
    import torch

    return torch.randperm(_TABLE_SIZE, generator=torch.Generator().manual_seed(key))


@dataclass(frozen=True)
class GreenLists:
    """Green lists of a vocabulary. They depend on torch's random numbers on the CPU.

    Attributes:
        vocab_size: V.
        ratio: share of the vocabulary that is green.
        key: the secret of the watermark.
        scheme: what selects a green list.
        width: number of tokens that select it, for "selfhash".
    """

    vocab_size: int
    ratio: float
    key: int
    scheme: Scheme
    width: int

    def ids(self, tokens: Sequence[int]) -> Tensor:
        """Return the green tokens (G,) after these tokens; with "selfhash", those with which the last token is judged."""
        import torch

        if self.scheme == "selfhash":
            table = _table(self.key)
            # Products of 64 bits, which overflow as those of the published implementation do.
            hashes = table[torch.tensor(tokens[-self.width :]) % _TABLE_SIZE] + 1
            seed = int((self.key * hashes * hashes[-1]).min())
        else:
            seed = self.key * tokens[-1]
        generator = torch.Generator().manual_seed(seed % (2**64 - 1))
        return torch.randperm(self.vocab_size, generator=generator)[: int(self.vocab_size * self.ratio)]
