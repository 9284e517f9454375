"""Checks of a model's inputs, and of the number of tokens after its blocks.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError, StateError
from gptkit.nn.head import IGNORED

__all__ = ["check_ids", "check_length", "check_remaining"]


def check_ids(ids_BT: Tensor, targets_BT: Tensor | None, vocab_size: int, *, decoding: bool) -> None:
    """Check the shapes of token ids and targets and, on the CPU, that they are in the vocabulary.

    Args:
        decoding: the call has a cache. A single token then comes from a sampler and is not checked.

    Raises:
        GptkitError: a shape is wrong, or an id is outside the vocabulary.
    """
    if ids_BT.dim() != 2:
        shape = tuple(ids_BT.shape)
        raise GptkitError(
            f"token ids must have the shape (rows, tokens), not {shape}", hint="For one text: model(ids[None])."
        )
    if targets_BT is not None and targets_BT.shape != ids_BT.shape:
        shapes = f"{tuple(targets_BT.shape)}, and the token ids {tuple(ids_BT.shape)}"
        raise GptkitError(f"the targets have the shape {shapes}", hint="Pass one target for each token.")
    # On other devices the check would wait for the device.
    if torch.compiler.is_compiling() or (decoding and ids_BT.shape[1] < 2) or ids_BT.device.type != "cpu":
        return
    for what, each_BT in (("token id", ids_BT), ("target", targets_BT)):
        if each_BT is None or not each_BT.numel():
            continue
        lowest, highest = (int(each) for each in each_BT.aminmax())
        if what == "target" and lowest == IGNORED:
            lowest = int(each_BT.masked_fill(each_BT == IGNORED, 0).min())
        if lowest < 0 or highest >= vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise GptkitError(
                f"the {what} {wrong} is outside the vocabulary of {vocab_size}",
                hint="Use the tokenizer that the model was trained with.",
            )


def check_length(ids_BT: Tensor, context_length: int) -> None:
    """Check that tokens fit into the context.

    Raises:
        StateError: they do not.
    """
    n_tokens = ids_BT.shape[1]
    if n_tokens > context_length:
        raise StateError(
            f"{n_tokens} tokens do not fit into the context length of {context_length}",
            hint="Shorten the text, or choose a longer model.context_length.",
        )


def check_remaining(blocks: Iterable[nn.Module], n_tokens: int, n_wanted: int) -> None:
    """Check that blocks returned as many tokens as are needed; they may return fewer than they received.

    Args:
        blocks: the blocks, whose classes the error names.

    Raises:
        StateError: they returned fewer.
    """
    if n_tokens < n_wanted:
        classes = ", ".join(sorted({f"{type(block).__module__}.{type(block).__qualname__}" for block in blocks}))
        raise StateError(
            f"the blocks ({classes}) returned {n_tokens} tokens, but {n_wanted} are needed",
            hint="The method forward of a block returns the shape that it receives, (B, T, d_model).",
        )
