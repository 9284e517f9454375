"""Sampling chain: samplers, then a draw of the next token.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec, expanded
from gptkit.ops.draw import draw

__all__ = ["Chain", "ChainTrace", "row_streams", "sampling_error"]


def row_streams(seed: int, n_rows: int) -> list[str]:
    """Return a seed for each row of a batch, derived from the seed of the batch."""
    return [f"{seed}/{row}" for row in range(n_rows)]


class ChainTrace(Protocol):
    """Record of one `Chain.pick`, for a report of what each sampler changed."""

    def sampler(self, index: int, spec: SamplerSpec, before_BV: Tensor, after_BV: Tensor) -> None:
        """Called after each sampler; neither tensor may be changed in place.

        Args:
            index: position of the sampler in the chain, after its presets are expanded.
            spec: the sampler's spec. A deterministic one is reported as keeping the most likely token of each row only;
                those after it are not applied, and not reported.
            before_BV: the logits that it received; -inf marks an excluded token.
            after_BV: the logits that it returned.
        """

    def drawn(self, tokens_B: Tensor, p_B: Tensor) -> None:
        """Called with the token of each row, and its probability under the final distribution."""


class Chain:
    """Apply samplers in order, then draw one token per row from softmax(logits).

    Every row has its own random stream, so its tokens do not depend on the other rows, the device or torch's version.

    Args:
        specs: the samplers; without any, tokens are drawn from the model's distribution. A deterministic sampler ends the
            chain.
        context: the batch to sample for.
        streams: the random seed of each row (see `row_streams`).
    """

    def __init__(self, specs: Sequence[SamplerSpec], context: SamplerContext, streams: Sequence[str]) -> None:
        self._specs = expanded(specs)
        self._links: list[Sampler] = []
        self._draws = True
        for index, spec in enumerate(self._specs):
            if spec.deterministic:
                self._draws = False
                break
            own = tuple(f"{stream}/sampler {index}" for stream in streams)
            self._links.append(spec.build(dataclasses.replace(context, streams=own)))
        anonymous = [spec.anonymous for spec in self._specs[: len(self._links)]]
        self._anonymous = anonymous
        # Tokens are removed only where the next sampler needs none of them.
        followed = [*anonymous[1:], True]
        self._reduces = [
            follows and type(link).reduced is not Sampler.reduced
            for link, follows in zip(self._links, followed, strict=False)
        ]
        self._listeners = [link for link in self._links if type(link).chosen is not Sampler.chosen]
        self._streams = [random.Random(stream) for stream in streams]

    def pick(
        self,
        logits_BV: Tensor,
        history: Sequence[Sequence[int]],
        trace: ChainTrace | None = None,
        failed: list[int] | None = None,
    ) -> Tensor:
        """Return the next token of each row, (B,).

        Args:
            logits_BV: fp32.
            history: the token ids of each row, including the prompt.
            trace: receives the logits before and after each sampler; it does not change the result.
            failed: receives the rows that cannot be sampled; their tokens are meaningless. Without it, they are an error.

        Raises:
            GptkitError: the logits contain NaN, or every token is masked.
        """
        ids_BK = None
        if trace is None:
            logits_BV, ids_BK = self._apply(logits_BV, history)
        else:
            for index in range(len(self._links)):
                before_BV, logits_BV = logits_BV, self._changed(index, logits_BV, history)
                trace.sampler(index, self._specs[index], before_BV, logits_BV)
        if self._draws:
            chosen_B, p_B = self._draw(logits_BV, failed)
        else:
            highest = logits_BV.max(dim=-1)
            chosen_B, p_B = highest.indices, torch.ones_like(highest.values)
            _report_failed(highest.values.isfinite(), failed)
            if trace is not None:
                kept_BV = torch.full_like(logits_BV, -torch.inf).scatter(-1, chosen_B[:, None], highest.values[:, None])
                trace.sampler(len(self._links), self._specs[len(self._links)], logits_BV, kept_BV)
        if ids_BK is not None:
            chosen_B = ids_BK.to(chosen_B.device).gather(-1, chosen_B[:, None])[:, 0]
        if trace is not None:
            trace.drawn(chosen_B, p_B)
        if self._listeners:
            tokens, log_probabilities = chosen_B.tolist(), p_B.log().tolist()
            for link in self._listeners:
                link.chosen(tokens, log_probabilities)
        return chosen_B

    def reorder(self, rows: Sequence[int]) -> None:
        """Replace row i by the previous row ``rows[i]``."""
        self._streams = [self._streams[row] for row in rows]
        for link in self._links:
            link.reorder(rows)

    def _apply(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """Apply the samplers; return the logits of some tokens, which include all that are left, and their ids.

        The ids are None if the logits are those of the whole vocabulary.
        """
        vocab_size, ids_BK = logits_BV.shape[-1], None
        for index, link in enumerate(self._links):
            if ids_BK is None and self._reduces[index]:
                reduced = link.reduced(logits_BV)
                if reduced is not None:
                    logits_BV, ids_BK = reduced
                    continue
            if ids_BK is not None and not self._anonymous[index]:
                whole_BV = logits_BV.new_full((len(logits_BV), vocab_size), -torch.inf)
                logits_BV, ids_BK = whole_BV.scatter(-1, ids_BK, logits_BV), None
            logits_BV = self._changed(index, logits_BV, history)
        return logits_BV, ids_BK

    def _changed(self, index: int, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits that a sampler returns.

        Raises:
            GptkitError: it returns something else.
        """
        changed_BV = self._links[index](logits_BV, history)
        if isinstance(changed_BV, Tensor) and changed_BV.shape == logits_BV.shape:
            return changed_BV
        what = f"shape {tuple(changed_BV.shape)}" if isinstance(changed_BV, Tensor) else type(changed_BV).__name__
        call = f"{type(self._links[index]).__module__}.{type(self._links[index]).__qualname__}.__call__"
        raise GptkitError(
            f"sampler {self._specs[index].name!r}: {call} returned {what}, not logits of the shape {tuple(logits_BV.shape)}",
            hint="Return a tensor of the shape of the logits that it receives.",
        )

    def _draw(self, logits_BV: Tensor, failed: list[int] | None) -> tuple[Tensor, Tensor]:
        p_BV = logits_BV.softmax(dim=-1)
        # NaN and rows without a finite logit make every probability NaN.
        finite_B1 = p_BV.sum(dim=-1, keepdim=True).isfinite()
        if not finite_B1.all():
            _report_failed(finite_B1[:, 0], failed)
            p_BV = p_BV.where(finite_B1, 1 / p_BV.shape[-1])  # any token, so that the other rows are drawn
        chosen_B = draw(p_BV, [stream.random() for stream in self._streams])
        return chosen_B, p_BV.to(chosen_B.device).gather(-1, chosen_B[:, None])[:, 0]


def sampling_error() -> GptkitError:
    """Return the error for a row whose next token cannot be sampled."""
    return GptkitError(
        "the next token cannot be sampled: the logits contain NaN or no finite value",
        hint="The weights may be damaged, training may have diverged, or a sampler excludes every token.",
    )


def _report_failed(finite_B: Tensor, failed: list[int] | None) -> None:
    if finite_B.all():
        return
    if failed is None:
        raise sampling_error()
    failed += finite_B.logical_not().nonzero()[:, 0].tolist()
