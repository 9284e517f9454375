"""Additional rows for token ids without an embedding in an external model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gptkit.checkpoint.safetensors import named_tensors
from gptkit.core.errors import ExternalModelError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec

__all__ = ["extended", "grow", "require_rows"]


def require_rows(location: str, n_ids: int, n_rows: int) -> None:
    """Raise an error if the tokenizer has ids without a row in the embedding.

    Raises:
        ExternalModelError: rows are missing; names both remedies.
    """
    if n_ids > n_rows:
        raise ExternalModelError(
            f"{location}: the tokenizer has {n_ids:,} ids and the model rows for {n_rows:,}",
            hint="Add the missing rows with --resize (resize=True), or remove the added_tokens without a row from "
            "tokenizer.json (often one for padding).",
        )


def extended(model: ModelSpec, n_ids: int) -> tuple[ModelSpec, Mapping[str, tuple[int, ...]]]:
    """Return the model's spec with rows for all ids, and the shape of each of its tensors by name."""
    grown = model.model_copy(update={"vocab_size": n_ids})
    tensors = named_tensors(GPT(grown, device="meta"))
    return grown, {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def grow(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Append copies of a tensor's mean along each axis that is shorter than in `shape`.

    The logit of a new id is then the mean of the others, and its probability is at most the average one (Jensen's
    inequality). Whole numbers, which name something (the experts of a token id), are those of the first ids.
    """
    for axis, size in enumerate(shape):
        missing = size - tensor.shape[axis]
        if missing and not tensor.is_floating_point():
            first = torch.arange(missing) % tensor.shape[axis]
            tensor = torch.cat([tensor, tensor.index_select(axis, first)], axis)
        elif missing:
            mean = tensor.float().mean(axis, keepdim=True).to(tensor.dtype)
            tensor = torch.cat([tensor, mean.expand(*tensor.shape[:axis], missing, *tensor.shape[axis + 1 :])], axis)
    return tensor
