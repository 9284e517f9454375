"""Template of convolutions of keys and values whose weights depend on the token (`kv_conv_form: dynamic`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import input_width
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["dynamic_convolution"]

_CLASS = '''
class $class_name(nn.Module):
    """Add to each feature a weighted sum of its last values, with weights that depend on the token.

    y_t = (x_t + sum_i (w_i + a_ti) x_(t-i)) / √(2 W + 1); a has one number for all features of a head.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros($KV_CONV, $CONV_FEATURES))
        self.dynamic = $dynamic

    def forward(self, x_BTC: Tensor, given_BTE: Tensor, start_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve each feature, (B, T, C) to (B, T, C), with the weights of the given vectors.

        The second result is the last inputs, which the next tokens need.
        """
        x_BSC = torch.cat((start_BTC, x_BTC), dim=1)
        dynamic_BTHW = self.dynamic(given_BTE).unflatten(-1, (-1, $KV_CONV))
        y_BTC = x_BTC
        for back in range($KV_CONV):
            begin = $KV_CONV - 1 - back
            part_BTC = x_BSC[:, begin : begin + x_BTC.shape[1]]
            part_BTHD = torch.unflatten(part_BTC, -1, (dynamic_BTHW.shape[2], -1))
            more_BTC = (part_BTHD * dynamic_BTHW[..., back, None]).flatten(2)
            y_BTC = y_BTC + part_BTC * self.weight[back] + more_BTC
        return y_BTC / (2 * $KV_CONV + 1) ** 0.5, x_BSC[:, x_BSC.shape[1] - start_BTC.shape[1] :]
'''


def dynamic_convolution(spec: HeadedSpec, context: WritingContext, heads: str, features: str) -> Written:
    """Return the convolution as a class.

    Args:
        spec: the attention.
        context: the writing context.
        heads: the number of heads, an expression.
        features: the number of all features, an expression.
    """
    d_input, own = input_width(context)
    settings = {
        "KV_CONV": Setting(spec.kv_conv, "tokens of the convolutions of keys and values"),
        "CONV_HEADS": Setting(Name(heads)),
        "CONV_FEATURES": Setting(Name(features)),
        **own,
    }
    text = fill(_CLASS, dynamic=linear(context, d_input, "$CONV_HEADS * $KV_CONV", bias=False))
    return Written("DynamicConvolution", text, settings=settings, section="attention")
