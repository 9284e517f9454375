"""Training windows of several sources, drawn in given shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gptkit.core.errors import DataError
from gptkit.core.suggestions import did_you_mean
from gptkit.data.files import TokenFile
from gptkit.data.packing import PackedWindows
from gptkit.data.sharded import view
from gptkit.data.windows import Batch, Windows

__all__ = ["MixedWindows", "Mixture", "part_of"]

_BLOCK = 4096
"""Number of data windows in which the shares are exact, up to rounding."""


@dataclass(frozen=True)
class Mixture:
    """Weights of sources from a data window on, in place of those before.

    Attributes:
        first: number of data windows before.
        weights: relative weight of each source by its name; sources that are not named are not drawn. None for the weights
            of the data.
    """

    first: int
    weights: Mapping[str, float] | None


class MixedWindows:
    """Data windows of several sources. Every batch is a function of its step, a seed, and the mixtures so far.

    Args:
        sources: the data windows of each source.
        shares: share of the data windows of each source; they add up to 1.
        names: names of the sources, for mixtures.
    """

    def __init__(
        self, sources: Sequence[Windows | PackedWindows], shares: Sequence[float], names: Sequence[str] = ()
    ) -> None:
        self._sources = list(sources)
        self._shares = tuple(shares)
        self._names = list(names)
        self._draws: dict[tuple[int, int, tuple[float, ...]], _Draws] = {}

    def batch(
        self,
        step: int,
        batch_size: int,
        seed: int = 0,
        *,
        first: int | None = None,
        mixtures: Sequence[Mixture] = (),
    ) -> Batch:
        """Return the batch of a training step (from 0); see `Windows.batch`.

        Args:
            step, batch_size, seed, first: as there.
            mixtures: the mixtures that began at this data window or before, in order.
        """
        first = step * batch_size if first is None else first
        source_B, before_S = self.draw(first, batch_size, seed, mixtures)
        batches = []
        for number in np.unique(source_B).tolist():
            count = int((source_B == number).sum())
            own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            windows = self._sources[number]
            batches.append(windows.batch(step, count, own_seed, first=int(before_S[number])))
        # The rows of the first source, then those of the next: put in the order of the draw.
        order_B = torch.from_numpy(np.argsort(np.argsort(source_B, kind="stable"), kind="stable"))
        inputs_BT, targets_BT = (torch.cat([batch[field] for batch in batches])[order_B] for field in (0, 1))
        documents = [batch.documents_BT for batch in batches if batch.documents_BT is not None]
        return Batch(inputs_BT, targets_BT, torch.cat(documents)[order_B] if documents else None)

    def draw(
        self, first: int, count: int, seed: int, mixtures: Sequence[Mixture] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the sources of the data windows after the `first` ones, (B,), and the number of each before, (S,)."""
        begins = [0, *(mixture.first for mixture in mixtures)]
        weights = [None, *(mixture.weights for mixture in mixtures)]
        parts = [self._draws_of(number, seed, each) for number, each in enumerate(weights)]
        before_S = np.zeros(len(self._sources), np.int64)
        for part, begin, end in zip(parts, begins, begins[1:], strict=False):
            before_S = before_S + part.before(end - begin)
        offset = first - begins[-1]
        return parts[-1].draw(offset, count), before_S + parts[-1].before(offset)

    def _draws_of(self, number: int, seed: int, weights: Mapping[str, float] | None) -> _Draws:
        shares = self._shares if weights is None else self._shares_of(weights)
        key = (number, seed, shares)
        if key not in self._draws:
            self._draws[key] = _Draws(shares, [seed, number] if number else [seed])
        return self._draws[key]

    def _shares_of(self, weights: Mapping[str, float]) -> tuple[float, ...]:
        """Return the share of each source.

        Raises:
            DataError: a name is unknown, a weight is negative or not finite, or their sum is 0 or not finite.
        """
        hint = "A callback of training.callbacks plans it: correct its fields."
        for name, weight in weights.items():
            if name not in self._names:
                similar = did_you_mean(str(name), self._names, "sources")
                raise DataError(
                    f"the mixture {dict(weights)} names {name!r}, which is not a source of the data; {similar}", hint=hint
                )
            if not 0 <= weight < math.inf:
                raise DataError(f"the mixture {dict(weights)} has the weight {weight} of {name!r}", hint=hint)
        total = sum(weights.values())
        if not 0 < total < math.inf:
            raise DataError(f"the weights of the mixture {dict(weights)} add up to {total}", hint=hint)
        return tuple(weights.get(name, 0.0) / total for name in self._names)


class _Draws:
    """Sources of the data windows of one mixture.

    Args:
        shares: share of each source.
        seed: seed of the order.
    """

    def __init__(self, shares: Sequence[float], seed: Sequence[int]) -> None:
        ends_S = np.cumsum(np.asarray(shares, np.float64)) * _BLOCK
        # Sums are rounded: sources with a share of 0 at the end must not get the difference.
        ends_S[np.flatnonzero(shares)[-1] :] = _BLOCK
        self._ends_S = ends_S
        self._seed = seed
        self._before_NS = np.zeros((1, len(shares)), np.int64)

    def draw(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the sources of the data windows after the `first` ones, (B,)."""
        block, offset = divmod(first, _BLOCK)
        parts = [self._block(number) for number in range(block, (first + count - 1) // _BLOCK + 1)]
        return np.concatenate(parts)[offset : offset + count]

    def before(self, first: int) -> NDArray[np.int64]:
        """Return the number of data windows of each source among the first ones, (S,)."""
        block, offset = divmod(first, _BLOCK)
        self._extend(block + 1)
        before_S: NDArray[np.int64] = self._before_NS[block]
        return before_S + np.bincount(self._block(block)[:offset], minlength=len(self._ends_S)) if offset else before_S

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed[0], number, *self._seed[1:]])

    def _counts(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return the number of data windows of each source in a block: its share, rounded at random without bias."""
        marks_S = np.floor(self._ends_S + generator.random())
        return np.diff(np.minimum(marks_S, _BLOCK), prepend=0.0).astype(np.int64)

    def _block(self, number: int) -> NDArray[np.int64]:
        generator = self._generator(number)
        counts_S = self._counts(generator)
        return generator.permutation(np.repeat(np.arange(len(counts_S)), counts_S))

    def _extend(self, n_blocks: int) -> None:
        """Compute the number of data windows of each source before each block."""
        known = len(self._before_NS) - 1
        if n_blocks > known:
            counts_NS = np.array([self._counts(self._generator(number)) for number in range(known, n_blocks)])
            more_NS = self._before_NS[-1] + np.cumsum(counts_NS, axis=0)
            self._before_NS = np.concatenate((self._before_NS, more_NS))


def part_of(file: TokenFile, first: int, end: int) -> TokenFile:
    """Return the tokens of a range, in which documents must not be cut."""
    starts = file.starts
    low, high = np.searchsorted(starts, [first, end]).tolist()
    masked = None if file.masked is None else view(file.masked, first, end)
    return TokenFile(view(file.tokens, first, end), (starts[low:high] - first,), masked)
