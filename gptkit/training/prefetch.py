"""Batches that are read and pinned in a thread while the previous step is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

from gptkit.data.mixing import Mixture
from gptkit.training.evaluation import Batch

__all__ = ["Prefetched", "TrainingBatches"]

_Arguments = tuple[int, int, int, int, tuple[Mixture, ...]]


class TrainingBatches(Protocol):
    """Function that returns the batch of a step; a pure function of its arguments (`Windows.batch`, for example)."""

    def __call__(self, step: int, batch_size: int, seed: int, /, *, first: int, mixtures: Sequence[Mixture] = ()) -> Batch:
        """Return the batch of a step. Called in another thread than the training.

        Args:
            step: number of completed steps.
            batch_size: the number of data windows.
            seed: the training's seed.
            first: number of data windows read by previous steps.
            mixtures: the mixtures that have begun; none if the weights of the data apply in all steps.
        """


class Prefetched:
    """Training batches, the next of which is computed ahead.

    The batch of a step is a pure function of its arguments, so one that was computed for other arguments (a callback planned
    another batch size) is discarded, and the results do not depend on what is computed ahead.

    Args:
        batches: the batches.
        device: the device of the training; memory for CUDA is pinned, so that the copy to it is asynchronous.
    """

    def __init__(self, batches: TrainingBatches, device: torch.device) -> None:
        self._batches = batches
        self._pins = device.type == "cuda"
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="gptkit-data")
        self._ahead: tuple[_Arguments, Future[Batch]] | None = None

    def __call__(
        self,
        step: int,
        batch_size: int,
        seed: int,
        *,
        first: int,
        mixtures: Sequence[Mixture] = (),
        last: bool = False,
    ) -> Batch:
        """Return the batch of a step, and begin with the next one.

        Args:
            step, batch_size, seed, first, mixtures: as for `TrainingBatches`.
            last: whether no step follows.
        """
        wanted = (step, batch_size, seed, first, tuple(mixtures))
        known, ahead = self._ahead or (None, None)
        self._ahead = None
        if ahead is not None and known != wanted and not ahead.cancel():
            ahead.exception()  # waits; its error, if any, belongs to a batch that is not used
        batch = ahead.result() if ahead is not None and known == wanted else self._read(*wanted)
        if not last:
            following = (step + 1, batch_size, seed, first + batch_size, tuple(mixtures))
            self._ahead = following, self._threads.submit(self._read, *following)
        return batch

    def close(self) -> None:
        """Discard what was computed ahead, and end the thread."""
        self._ahead = None
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int, batch_size: int, seed: int, first: int, mixtures: tuple[Mixture, ...]) -> Batch:
        mixed = {"mixtures": mixtures} if mixtures else {}
        inputs_BT, targets_BT, documents_BT = self._batches(step, batch_size, seed, first=first, **mixed)
        if self._pins:
            documents_BT = None if documents_BT is None else documents_BT.pin_memory()
            return inputs_BT.pin_memory(), targets_BT.pin_memory(), documents_BT
        return inputs_BT, targets_BT, documents_BT
