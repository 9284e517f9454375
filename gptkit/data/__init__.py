"""Data pipeline: the train/validation split, token files, and batches of data windows.

Names are imported on first use: tokenization in worker processes requires neither torch nor its memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptkit.data.dataset import GPTDataset as GPTDataset
    from gptkit.data.dataset import create_dataloader as create_dataloader
    from gptkit.data.preparation import Progress as Progress
    from gptkit.data.preparation import prepare as prepare
    from gptkit.data.prepared import Prepared as Prepared
    from gptkit.data.prepared import open_prepared as open_prepared
    from gptkit.data.split import Split as Split
    from gptkit.data.split import corpus_texts as corpus_texts
    from gptkit.data.split import plan_split as plan_split
    from gptkit.data.windows import Batch as Batch
    from gptkit.data.windows import Windows as Windows

_WHERE = {
    "Batch": "windows",
    "GPTDataset": "dataset",
    "Prepared": "prepared",
    "Progress": "preparation",
    "Split": "split",
    "Windows": "windows",
    "corpus_texts": "split",
    "create_dataloader": "dataset",
    "open_prepared": "prepared",
    "plan_split": "split",
    "prepare": "preparation",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gptkit.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gptkit.data.{_WHERE[name]}"), name)
