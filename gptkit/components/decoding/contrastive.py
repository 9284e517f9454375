"""Decoding `contrastive`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.decoding import DecodingContext, DecodingSpec

if TYPE_CHECKING:
    from gptkit.components.decoding.modules.contrastive import ContrastiveSearch

__all__ = ["ContrastiveSpec"]


class ContrastiveSpec(DecodingSpec):
    """Contrastive search (SimCTG): prefer likely tokens whose hidden state differs from those of the text.

    Formula:
        x = argmax over the k most likely v of  (1 − α) P[v] − α max over the text's tokens w of cos(h[v], h[w])
        h: the vector that the model's head receives at a token

    Shapes:
        (k, V), (k, 1, E) → k rows

    Paper:
        https://arxiv.org/abs/2202.06417

    Notes:
        Deterministic. Every token takes a forward pass of k rows, and the prompt is read twice. The score of the result is
        the mean of ln P[x].
    """

    formula: ClassVar[str] = r"""
        x = \operatorname{argmax}_{v \in \text{top } k}\ (1 - \alpha) P_v - \alpha\, m_v
        m_v = \max_w \cos(h_v, h_w)
    """

    deterministic: ClassVar[bool] = True

    name: Literal["contrastive"] = "contrastive"
    k: int = Field(4, ge=1, le=1000, description="Number of candidates; 1 selects the most likely token.")
    alpha: float = Field(0.6, ge=0, le=1, description="Weight of the degeneration penalty; 0 is the most likely token.")

    @property
    def n_rows(self) -> int:
        return self.k

    def build(self, context: DecodingContext) -> ContrastiveSearch:
        from gptkit.components.decoding.modules.contrastive import ContrastiveSearch

        return ContrastiveSearch(context, self.k, self.alpha)
