"""Causal convolution over tokens, of each feature or of groups of features, continued from call to call.

Shapes: B batch, T tokens, W width of the convolution, F features, G features of a group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.ops.symbols import varies

__all__ = ["causal_conv", "conv_tail"]


def causal_conv(
    x_BTF: Tensor,
    weight_FGW: Tensor,
    tail_BWF: Tensor | None = None,
    positions_BT: Tensor | None = None,
    *,
    dilation: int = 1,
) -> Tensor:
    """Convolve each feature with preceding values of its group: Σ_i weight[W − 1 − i] · x[t − i], i = 0 … W − 1, (B, T, F).

    With a dilation D: Σ_i weight[W − 1 − i] · x[t − D · i].

    Args:
        x_BTF: the input.
        weight_FGW: the weight of an `F.conv1d` with as many inputs as outputs: depthwise, with G = 1, or in groups of G
            features.
        tail_BWF: the D · (W − 1) tokens before the first; None for zeros.
        positions_BT: positions within documents; the convolution stays within a document. None for one document per row.
        dilation: D, the distance between tokens that are summed.
    """
    n_groups, width = weight_FGW.shape[0] // weight_FGW.shape[1], weight_FGW.shape[2]
    reach = dilation * (width - 1)
    if tail_BWF is None:
        tail_BWF = x_BTF.new_zeros(x_BTF.shape[0], reach, x_BTF.shape[2])
    x_BSF = torch.cat((tail_BWF.to(x_BTF.dtype), x_BTF), dim=1)
    if positions_BT is None:
        return F.conv1d(x_BSF.transpose(1, 2), weight_FGW, groups=n_groups, dilation=dilation).transpose(1, 2)
    out_BTF = torch.zeros_like(x_BTF)
    for index in range(width):
        back = dilation * index
        seen_BTF = x_BSF[:, reach - back : x_BSF.shape[1] - back] * (positions_BT >= back)[..., None]
        weight_FG1 = weight_FGW[:, :, width - 1 - index, None]
        if weight_FG1.shape[1] == 1:
            out_BTF = out_BTF + seen_BTF * weight_FG1[:, 0, 0]
        else:
            out_BTF = out_BTF + F.conv1d(seen_BTF.transpose(1, 2), weight_FG1, groups=n_groups).transpose(1, 2)
    return out_BTF


def conv_tail(x_BTF: Tensor, width: int, tail_BWF: Tensor | None = None) -> Tensor:
    """Return the last W − 1 inputs of a convolution, which the next tokens need.

    Args:
        x_BTF: the input of this call.
        width: of the convolution, W.
        tail_BWF: the W − 1 tokens before the first; None for zeros.
    """
    n_kept = width - 1
    if tail_BWF is None:
        tail_BWF = x_BTF.new_zeros(x_BTF.shape[0], n_kept, x_BTF.shape[2])
    if not varies(x_BTF.shape[1]):
        x_BTF = x_BTF[:, -n_kept:] if n_kept else x_BTF[:, :0]
    joined = torch.cat((tail_BWF, x_BTF), dim=1)
    return joined[:, joined.shape[1] - n_kept :].clone()
