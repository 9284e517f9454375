"""The function by which templates of any kind write `gptkit.nn.short_convolution.ShortConvolution`."""

from __future__ import annotations

from gptkit.kinds.written import Written, fill

__all__ = ["short_convolution"]

_FUNCTION = '''
def $class_name(x_BTC: Tensor, conv: nn.Conv1d, start_BTC: Tensor) -> tuple[Tensor, Tensor]:
    """Add to each feature its convolution with preceding values, (B, T, C) to (B, T, C).

    The second result is the last inputs, which the next tokens need.
    """
    x_BSC = torch.cat((start_BTC, x_BTC), dim=1)
    y_BTC = x_BTC + conv(x_BSC.transpose(1, 2)).transpose(1, 2)
    return y_BTC, x_BSC[:, x_BSC.shape[1] - start_BTC.shape[1] :]
'''

short_convolution = Written("short_convolution", fill(_FUNCTION), section="norm")
"""The function of x, the convolution, and the inputs before x; returns its result and the last inputs.

A template stores these under a name of its own, in two lines that generated code for transformers recognizes::

    start_BTE = cache.get("outputs", x_BTE.new_zeros(len(x_BTE), $WIDTH - 1, D_MODEL))
    x_BTE, cache["outputs"] = $short_convolution(x_BTE, self.conv, start_BTE)
"""
