"""Sampler `sequence-bias`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gptkit.components.sampler.generated import encoded
from gptkit.components.sampler.ids import check_ids
from gptkit.core.spec import Spec
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BiasedSequence", "SequenceBias", "SequenceBiasSpec"]


class SequenceBias(Sampler):
    """Runtime part of `SequenceBiasSpec`."""

    def __init__(self, sequences: Sequence[tuple[Sequence[int], float]]) -> None:
        self.sequences = sequences

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        matches = [
            (row, ids[-1], bias)
            for row, tokens in enumerate(history)
            for ids, bias in self.sequences
            if len(ids) == 1 or list(tokens[1 - len(ids) :]) == list(ids[:-1])
        ]
        if not matches:
            return logits_BV
        rows, tokens, biases = zip(*matches, strict=True)
        device = logits_BV.device
        places = torch.tensor(rows, device=device), torch.tensor(tokens, device=device)
        bias_BV = torch.zeros_like(logits_BV)
        bias_BV.index_put_(places, torch.tensor(biases, device=device), accumulate=True)
        return logits_BV + bias_BV


class BiasedSequence(Spec):
    """A sequence of tokens and its bias."""

    text: str | None = Field(None, min_length=1, description="The text, encoded by the tokenizer; or `tokens`.")
    tokens: tuple[int, ...] | None = Field(None, min_length=1, description="The ids of the tokens; or `text`.")
    bias: float = Field(description="Added to the logit of the last token.", ge=-1e6, le=1e6)

    @model_validator(mode="after")
    def _either(self) -> BiasedSequence:
        if (self.text is None) == (self.tokens is None):
            raise PydanticCustomError("sequence", "a sequence has either a text or tokens; set one of the two")
        return self


class SequenceBiasSpec(SamplerSpec):
    """Add a bias to the token that would complete a sequence of tokens.

    Formula:
        logits[v] ← logits[v] + bias  for every sequence that ends with v and whose other tokens end the text

    Shapes:
        (B, V) → (B, V)

    Notes:
        transformers' `sequence_bias` (and `bad_words_ids`, with a bias of −1,000,000). A text is one sequence of tokens;
        with other tokens it is not found, while `banned-strings` compares the text itself.
    """

    formula: ClassVar[str] = r"""
        z_v \leftarrow z_v + \sum_{s} b_s \qquad s = s_1 \dots s_n v
        \text{if the text ends in } s_1 \dots s_n
    """

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"sequences": ({"tokens": (3, 7), "bias": -4.0}, {"tokens": (2,), "bias": 1.0}, {"text": "ab", "bias": 2.0})},
    )

    name: Literal["sequence-bias"] = "sequence-bias"
    sequences: tuple[BiasedSequence, ...] = Field((), description="The sequences, each with its bias.")

    def build(self, context: SamplerContext) -> SequenceBias:
        made: list[tuple[Sequence[int], float]] = []
        for each in self.sequences:
            if each.tokens is None:
                ids: Sequence[int] = encoded("sequence-bias", each.text or "", context.tokenizer, context.vocab_size)
            else:
                ids = each.tokens
                check_ids("sequence-bias", ids, context.vocab_size)
            made.append((ids, each.bias))
        return SequenceBias(made)
