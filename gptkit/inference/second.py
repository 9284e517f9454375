"""Second forward pass of a batch: logits after other texts than the generated ones.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.inference.batch import Batch
from gptkit.inference.modes import evaluating
from gptkit.inference.protocol import LanguageModel

__all__ = ["SecondReading"]


class SecondReading:
    """Logits of texts that accompany the generated ones, with a cache of their own: the model's `LogitsReader`.

    Args:
        model: the model.
        vocab_size: V, at most the model's.
        room: number of tokens by which the texts will grow.
    """

    def __init__(self, model: LanguageModel, vocab_size: int, room: int) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._room = room
        self._batch: Batch | None = None

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits after each text, (B, V) fp32."""
        with torch.inference_mode(), evaluating(self._model):
            return self._logits([list(text) for text in texts])[:, : self._vocab_size]

    def reorder(self, rows: Sequence[int]) -> None:
        """Replace row i by the previous row ``rows[i]``."""
        if self._batch is not None:
            with torch.inference_mode():
                self._batch.reorder(rows)

    def _logits(self, texts: list[list[int]]) -> Tensor:
        batch = self._batch
        if batch is not None and [text[:-1] for text in texts] == batch.histories:
            batch.histories = texts
            return batch.step(torch.tensor([text[-1] for text in texts], device=self._model.device))
        self._batch = None  # free the old cache first
        batch = Batch(self._model, texts, self._room)
        logits_BV = batch.read()
        self._batch = batch
        return logits_BV
