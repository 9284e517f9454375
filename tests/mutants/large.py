"""A head with one error: large initial values."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptkit.components.head.linear import LinearHeadSpec
from gptkit.components.head.modules.linear import LinearHead
from gptkit.kinds.context import BuildContext
from gptkit.nn.embedding import Embedding
from gptkit.nn.initial import Initial
from tests.mutants.mutant import Mutant, become


class LargeLogits(Mutant, LinearHeadSpec):
    """Initialize the matrix with a standard deviation of ten."""

    class Runtime(LinearHead):
        def initial(self) -> dict[str, Initial]:
            def large(shape: torch.Size, generator: torch.Generator) -> Tensor:
                return 10 * torch.randn(shape, generator=generator)

            (name,) = dict(self.named_parameters())
            return {name: large}

    name: Literal["large-logits"] = "large-logits"  # type: ignore[assignment]
    caught_by = "starts-near-guessing"

    def build(self, context: BuildContext, *, embedding: Embedding) -> LinearHead:
        made: LinearHead = become(super().build(context, embedding=embedding), self.Runtime)
        return made
