"""Drafter `draft-run`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.drafter.likeliest import Likeliest
from gptkit.kinds.drafter import MAX_DRAFT, DrafterContext, DrafterSpec

__all__ = ["DraftRunSpec"]


class DraftRunSpec(DrafterSpec):
    """Draft model: propose the most likely tokens of another, smaller run with the same tokenizer.

    The run has its own key/value cache, from which rejected tokens are discarded. It pays off if the run is several times
    faster than the model and often agrees with it.

    Paper:
        https://arxiv.org/abs/2211.17192, https://arxiv.org/abs/2302.01318
    """

    formula: ClassVar[str] = r"\hat{x}_{t+1} = \operatorname{argmax}_v z^{\text{draft}}_v(x_{1:t})"

    name: Literal["draft-run"] = "draft-run"
    run: str = Field(description="Run directory of the smaller model.")
    k: int = Field(5, ge=1, le=MAX_DRAFT, description="Maximum number of proposed tokens.")
    min_probability: float = Field(
        0.4, ge=0, le=1, description="Propose no further tokens when the most likely one has a lower probability than this."
    )
    adaptive: bool = Field(True, description="Propose fewer tokens after rejected ones, and more after accepted ones.")
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"run": "runs/small"},)

    def build(self, context: DrafterContext) -> Likeliest:
        return Likeliest(context.open_run(self.run), self.k, self.min_probability, self.adaptive)
