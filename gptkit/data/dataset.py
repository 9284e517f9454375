"""Dataset of (input, target) windows of a text, and a torch `DataLoader`, usable without the rest of gptkit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gptkit.data.files import token_dtype
from gptkit.data.windows import Windows
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["GPTDataset", "create_dataloader"]


class GPTDataset(Dataset[tuple[Tensor, Tensor]]):
    """Data windows of `max_length` tokens of a text, `stride` tokens apart, with the targets shifted by one token.

    Args:
        text: the text.
        tokenizer: encodes the text.
        max_length: tokens per data window (the context length).
        stride: distance between the first tokens of consecutive data windows.
        allowed_special: special tokens that are recognized in the text.

    Raises:
        DataError: the text has fewer than `max_length` + 1 tokens.
    """

    def __init__(
        self, text: str, tokenizer: Tokenizer, max_length: int, stride: int, *, allowed_special: Collection[str] = ()
    ) -> None:
        ids = tokenizer.encode(text, allowed_special=allowed_special)
        self.windows = Windows(np.array(ids, token_dtype(tokenizer.vocab_size)), max_length, stride=stride)

    @classmethod
    def from_tokens(
        cls,
        tokens: Sequence[int] | NDArray[np.integer[Any]],
        max_length: int,
        stride: int,
        *,
        masked: Sequence[bool] | NDArray[np.bool_] | None = None,
    ) -> GPTDataset:
        """Create the dataset from token ids: a list, an array, or a memory map.

        Args:
            tokens: the ids.
            max_length, stride: as for the class.
            masked: for each id whether it is excluded from the loss: as a target it is -100.
        """
        dataset = cls.__new__(cls)
        masked_N = None if masked is None else np.asarray(masked, np.bool_)
        dataset.windows = Windows(np.asarray(tokens), max_length, stride=stride, masked=masked_N)
        return dataset

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.windows[index]


def create_dataloader(
    text: str,
    tokenizer: Tokenizer,
    *,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Create a loader of batches (inputs_BT, targets_BT) of a text.

    Args:
        text, tokenizer, max_length, stride: see `GPTDataset`.
        batch_size: data windows per batch.
        shuffle: shuffle the data windows in every epoch.
        drop_last: drop an incomplete last batch.
        num_workers: number of loader processes.
    """
    dataset = GPTDataset(text, tokenizer, max_length, stride)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers)
