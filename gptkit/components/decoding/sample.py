"""Decoding `sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.decoding import DecodingContext, DecodingSpec

if TYPE_CHECKING:
    from gptkit.components.decoding.modules.best_of import Sampling

__all__ = ["SampleSpec"]


class SampleSpec(DecodingSpec):
    """Draw one token after another from the distribution that the samplers leave.

    Formula:
        x ~ softmax(logits); with the sampler `greedy`, the most likely token

    Shapes:
        (1, V) → one row
    """

    formula: ClassVar[str] = r"x \sim \operatorname{softmax}(z)"

    samples: ClassVar[bool] = True

    name: Literal["sample"] = "sample"

    def build(self, context: DecodingContext) -> Sampling:
        from gptkit.components.decoding.modules.best_of import Sampling

        return Sampling(context, [context.stream])
