"""Decoding `diverse-beam`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.decoding import DecodingContext, DecodingSpec

if TYPE_CHECKING:
    from gptkit.components.decoding.modules.diverse_beam import DiverseBeamSearch

__all__ = ["DiverseBeamSpec"]


class DiverseBeamSpec(DecodingSpec):
    """Diverse beam search: groups of beams, each of which avoids the tokens of the groups before it.

    Formula:
        in group g:  ln P[v] − diversity · (number of beams of the groups before g that v continues in this step)
        score = the sum of these / (number of tokens, including the stop token) ^ length_penalty

    Shapes:
        (groups · width, V) → groups · width rows

    Paper:
        https://arxiv.org/abs/1610.02424

    Notes:
        The dissimilarity is the Hamming diversity of the paper. The penalties remain part of the scores.
    """

    formula: ClassVar[str] = r"""
        \ln P_v - \text{diversity} \cdot n_v
        n_v = \text{earlier beams that chose } v
    """

    deterministic: ClassVar[bool] = True

    name: Literal["diverse-beam"] = "diverse-beam"
    groups: int = Field(3, ge=1, le=1000, description="Number of groups; 1 is beam search.")
    width: int = Field(2, ge=1, le=1000, description="Number of beams of each group.")
    diversity: float = Field(0.5, ge=0, le=1000, description="Penalty for each beam with the same token.")
    length_penalty: float = Field(
        1.0, ge=-10, le=10, description="0 ranks by probability, which favors short texts; above 1 favors long ones."
    )
    early_stopping: Literal["never", "likely", "always"] = Field(
        "likely", description="When a group ends after `width` of its continuations have ended, as in `beam`."
    )

    @property
    def n_rows(self) -> int:
        return self.groups * self.width

    def build(self, context: DecodingContext) -> DiverseBeamSearch:
        from gptkit.components.decoding.modules.diverse_beam import DiverseBeamSearch

        return DiverseBeamSearch(context, self.groups, self.width, self.diversity, self.length_penalty, self.early_stopping)
