"""Tokens that arrive in pieces, some of them behind padding."""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.model.gpt import GPT

__all__ = ["assert_padded_pieces_equal_one_call"]


@torch.no_grad()
def assert_padded_pieces_equal_one_call(model: GPT, ids_BT: Tensor, *, static: bool) -> None:
    """Compare the logits of two rows of 20 tokens in one call with those of pieces, the second row behind padding."""
    full, padding = model(ids_BT).logits, torch.tensor([0, 4])
    assert full is not None
    rows = torch.cat((ids_BT[:1], torch.cat((torch.zeros(1, 4, dtype=torch.long), ids_BT[1:, :-4]), dim=1)))
    cache = model.new_cache(2, left_padding_B=padding, static=static)
    cached = torch.cat([model(piece, cache=cache).logits for piece in rows.split([1, 2, 9, 1, 1, 6], dim=1)], dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 4:], full[1, :-4], atol=1e-9, rtol=1e-9)
