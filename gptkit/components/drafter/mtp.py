"""Drafter `mtp`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gptkit.components.drafter.likeliest import Likeliest
from gptkit.kinds.drafter import MAX_DRAFT, DrafterContext, DrafterSpec

__all__ = ["MtpSpec"]


class MtpSpec(DrafterSpec):
    """Multi-token prediction: propose the most likely tokens of the prediction modules that the model was trained with.

    It requires a model with the head `multi-token`. A module costs about as much as one layer and the head, and it reads the
    vectors that the model has computed, so it agrees with the model more often than another small model does.

    Formula:
        T tokens of a text are cached, t = T − 1;  module k: hᵏ[t] = module k(hᵏ⁻¹[t], x[t + k]),  x[t + 2], … are proposed
        x[t + k + 1] = argmax of logitsᵏ[t];  after the last module K:  h[t + 1] = module K(hᴷ[t], x[t + 1 + K]), and so on

    Paper:
        https://arxiv.org/abs/2412.19437 (section 2.2); one module applied repeatedly: https://arxiv.org/abs/2401.15077
    """

    formula: ClassVar[str] = r"""
        h^k_t = \text{module}_k(h^{k-1}_t, x_{t+k})
        \hat{x}_{t+k+1} = \operatorname{argmax}_v z^k_{t,v}
    """

    name: Literal["mtp"] = "mtp"
    k: int = Field(
        3,
        ge=1,
        le=MAX_DRAFT,
        description="Maximum number of proposed tokens; the last module is reused if there are fewer.",
    )
    min_probability: float = Field(
        0.4, ge=0, le=1, description="Propose no further tokens when the most likely one has a lower probability than this."
    )
    adaptive: bool = Field(True, description="Propose fewer tokens after rejected ones, and more after accepted ones.")

    def build(self, context: DrafterContext) -> Likeliest:
        return Likeliest(context.open_predictions(), self.k, self.min_probability, self.adaptive)
