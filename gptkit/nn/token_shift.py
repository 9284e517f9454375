"""The vectors of the previous tokens, which layers of RWKV mix with those of the current ones.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.nn.forward import Forward

__all__ = ["shifted", "without_padding"]


def without_padding(x_BTE: Tensor, forward: Forward) -> Tensor:
    """Return the vectors of a call's last tokens, with zeros for padding: the token after it has no previous one."""
    if forward.valid_BT is None:
        return x_BTE
    return x_BTE.masked_fill(~forward.valid_BT[:, -x_BTE.shape[1] :, None], 0)


def shifted(x_BTE: Tensor, last_B1E: Tensor | None, forward: Forward) -> Tensor:
    """Return the vector before each token: `last_B1E` or 0 for the first one of the call, 0 at the start of a document.

    Args:
        x_BTE: the vectors of a call's last tokens.
        last_B1E: the vector before them; None for 0.
        forward: the context of the call.
    """
    if last_B1E is None:
        last_B1E = torch.zeros_like(x_BTE[:, :1])
    previous_BTE = torch.cat((last_B1E.to(x_BTE.dtype), x_BTE), dim=1)[:, :-1]
    if forward.documents_BT is None:
        return previous_BTE
    return previous_BTE * (forward.positions[..., -x_BTE.shape[1] :, None] > 0)
