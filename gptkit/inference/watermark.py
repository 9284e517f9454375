"""Detection of the watermark of the sampler `watermark`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.components.sampler.watermark import WatermarkSpec
from gptkit.core.errors import GptkitError

__all__ = ["WatermarkScore", "detect"]


@dataclass(frozen=True)
class WatermarkScore:
    """Evidence that a text has a watermark.

    Attributes:
        n_scored: number of tokens that were judged.
        n_green: number of green ones among them.
        z: standard deviations by which `n_green` exceeds its mean in a text without watermark; above 4 is strong evidence.
        p_value: probability of such a z in a text without watermark.
    """

    n_scored: int
    n_green: int
    z: float
    p_value: float

    @property
    def green_fraction(self) -> float:
        """Share of green tokens."""
        return self.n_green / self.n_scored


def detect(
    ids: Sequence[int], watermark: WatermarkSpec, vocab_size: int, *, ignore_repeated: bool = False
) -> WatermarkScore:
    """Count the green tokens of a text.

    Args:
        ids: the tokens of the text, without the prompt.
        watermark: the sampler's spec, as it was for the generation.
        vocab_size: size of the vocabulary in generation: the smaller of the model's and the tokenizer's.
        ignore_repeated: count equal sequences of tokens once, since repetitions are not independent evidence.

    Formula:
        z = (n_green − ratio · n_scored) / √(n_scored · ratio · (1 − ratio))

    Paper:
        https://arxiv.org/abs/2301.10226

    Raises:
        GptkitError: the text is too short.
    """
    own = watermark.scheme == "selfhash"
    length = watermark.width + (0 if own else 1)
    if len(ids) <= watermark.width:
        raise GptkitError(
            f"the text has {len(ids)} tokens, but this watermark needs at least {watermark.width + 1}",
            hint="Use a longer text; at least 100 tokens for a significant result.",
        )
    lists = watermark.green_lists(vocab_size)
    counts = Counter(tuple(ids[start : start + length]) for start in range(len(ids) - length + 1))
    green = [ngram for ngram in counts if ngram[-1] in lists.ids(ngram if own else ngram[:-1])]
    n_scored = len(counts) if ignore_repeated else counts.total()
    n_green = len(green) if ignore_repeated else sum(counts[ngram] for ngram in green)
    ratio = watermark.ratio
    z = (n_green - ratio * n_scored) / math.sqrt(n_scored * ratio * (1 - ratio))
    return WatermarkScore(n_scored, n_green, z, 0.5 * math.erfc(z / math.sqrt(2)))
