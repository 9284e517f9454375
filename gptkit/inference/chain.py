"""A chain of samplers, and the draw at its end.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

__all__ = ["Chain", "row_streams"]


def row_streams(seed: int, n_rows: int) -> list[str]:
    """The seeds of the rows' random numbers in a batch with one seed."""
    return [f"{seed}/{row}" for row in range(n_rows)]


class Chain:
    """Samplers in the order written, then one token a row drawn from softmax(logits).

    Every row has a stream of random numbers of its own, so what a row draws does not depend on the rows beside it, on the
    device or on torch's version.

    Args:
        specs: the samplers; none draws from the model's own distribution. A deterministic one ends the chain.
        context: the batch that they are for.
        streams: for each row the seed of its random numbers (see `row_streams`); equal seeds draw equal numbers.
    """

    def __init__(self, specs: Sequence[SamplerSpec], context: SamplerContext, streams: Sequence[str]) -> None:
        self._links: list[Sampler] = []
        self._draws = True
        for spec in specs:
            if spec.deterministic:
                self._draws = False
                break
            self._links.append(spec.build(context))
        self._listeners = [link for link in self._links if type(link).chosen is not Sampler.chosen]
        self._streams = [random.Random(stream) for stream in streams]

    def pick(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        """The next token of each row, (B,).

        Args:
            logits_BV: fp32.
            history: for each row the token ids so far, prompt included.

        Raises:
            GptkitError: the logits are not numbers, or nothing is left to draw from.
        """
        for link in self._links:
            logits_BV = link(logits_BV, history)
        if self._draws:
            chosen_B, p_B = self._draw(logits_BV)
        else:
            highest = logits_BV.max(dim=-1)
            chosen_B, p_B = highest.indices, torch.ones_like(highest.values)
            if not highest.values.isfinite().all():
                raise _not_finite()
        if self._listeners:
            tokens, log_probabilities = chosen_B.tolist(), p_B.log().tolist()
            for link in self._listeners:
                link.chosen(tokens, log_probabilities)
        return chosen_B

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i what row ``rows[i]`` was."""
        self._streams = [self._streams[row] for row in rows]
        for link in self._links:
            link.reorder(rows)

    def _draw(self, logits_BV: Tensor) -> tuple[Tensor, Tensor]:
        # The inverse of the cumulative distribution: one random number a row, and eight times as fast as multinomial.
        # In fp64, where rounding cannot move a boundary by as much as one token in a million draws.
        if logits_BV.device.type == "mps":
            logits_BV = logits_BV.cpu()  # it has no fp64
        p_BV = logits_BV.softmax(dim=-1)
        cumulative_BV = p_BV.cumsum(dim=-1, dtype=torch.float64)
        total_B1 = cumulative_BV[:, -1:]
        if not total_B1.isfinite().all():
            raise _not_finite()
        uniform_B1 = total_B1.new_tensor([[stream.random()] for stream in self._streams])
        # At most (1 - 2⁻⁵³) of the total, which no rounding brings up to it: so there always is an entry above, and the
        # first one is of a token with a probability above zero.
        chosen_B1 = torch.searchsorted(cumulative_BV, uniform_B1 * total_B1, right=True)
        return chosen_B1[:, 0], p_BV.gather(-1, chosen_B1)[:, 0]


def _not_finite() -> GptkitError:
    return GptkitError(
        "the next token cannot be chosen: the logits hold no finite number, or NaN",
        hint="The weights may be damaged or the training may have diverged; or a sampler rules out every token.",
    )
