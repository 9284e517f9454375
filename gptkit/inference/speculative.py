"""Speculative decoding: a drafter proposes tokens, and the model verifies several at once.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptkit.inference.batch import Batch
from gptkit.inference.drafting import CheckedDrafter, Drafting
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import RequestState
from gptkit.inference.scheduler import Event, Scheduler
from gptkit.kinds.drafter import MAX_DRAFT, DrafterSpec
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["SpeculativeScheduler"]


@dataclass
class _Row:
    """One text.

    Attributes:
        drafter: its drafter.
        n_pending: number of its last tokens that are not in the cache: at least 1, the token sampled last.
        proposal: the proposed tokens of this step.
    """

    drafter: CheckedDrafter
    n_pending: int = 1
    proposal: Sequence[int] = ()


class SpeculativeScheduler(Scheduler):
    """Scheduler that generates one or several tokens of every running request per step, with the same texts.

    Each step processes the pending tokens of every row and its proposal in one forward pass. Then the sampler chain draws,
    position by position, the token that it would draw without a drafter, with the same random number and the same state of
    its samplers. A proposed token is accepted if it equals the drawn one. Texts, log-probabilities and traces are
    therefore those of `Scheduler` for the same seed, up to rounding.

    All rows of a cache end at the same offset. If rows accept different numbers of tokens, the cache keeps the smallest
    number; the other tokens stay pending, and are processed again. The batch therefore advances at the speed of its slowest
    row; speculative decoding is most effective for a single text. After a rejection, a recurrent state returns to its
    length before the step, and the next step processes the pending tokens without a proposal.

    Args:
        model: a `gptkit.model.gpt.GPT`, or a `LanguageModel` with a `VerifiableCache`.
        drafter: the drafter.
        tokenizer, max_batch, prefill_chunk, prefill_chunk_busy, prefix_bytes, compile: as for `Scheduler`.

    Raises:
        GptkitError: the cache cannot discard rejected tokens, or the drafter cannot be built.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        drafter: DrafterSpec,
        *,
        max_batch: int = 32,
        prefill_chunk: int | None = 512,
        prefill_chunk_busy: int | None = 128,
        prefix_bytes: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            max_batch=max_batch,
            prefill_chunk=prefill_chunk,
            prefill_chunk_busy=prefill_chunk_busy,
            prefix_bytes=prefix_bytes,
            compile=compile,
        )
        self._drafting = Drafting(drafter, model, tokenizer, compile=compile)
        self._keep_hidden = self._drafting.needs_hidden
        self._rows: dict[RequestState, _Row] = {}
        self._catch_up = False

    def _grouped(self, admitted: Sequence[RequestState]) -> list[list[RequestState]]:
        # Texts advance by different numbers of tokens, so each has a chain of its own.
        return [[state] for state in admitted]

    def _decode(self, batch: Batch) -> list[Event]:
        states = self.running
        self._rows = {state: self._rows.get(state) or _Row(self._drafting.start()) for state in states}
        live = {index: self._rows[state] for index, state in enumerate(states) if state.finish is None}
        if batch.full:
            for row in live.values():
                row.n_pending = 1  # after the texts are processed again
            self._catch_up = False
            return super()._decode(batch)
        width = self._propose(batch, states, live)
        if width == 1 and all(row.n_pending == 1 for row in live.values()):
            return super()._decode(batch)
        logits_BTV = batch.verify(self._columns(states, live, width))[..., : self._vocab_size]
        events, n_valid = self._accept(logits_BTV, states, live, width)
        self._truncate(batch, live, width, min(n_valid.values(), default=width))
        last = [[state.history[-1]] for state in states]
        self._chosen_B = torch.tensor(last, device=logits_BTV.device)[:, 0]
        return events

    def _propose(self, batch: Batch, states: Sequence[RequestState], live: Mapping[int, _Row]) -> int:
        """Set the proposal of every row; return the number of tokens to process.

        The rows with the fewest pending tokens decide on this number. Others wait, or propose what fits.
        """
        fewest = min(row.n_pending for row in live.values())
        n_columns = batch.verifiable(max(fewest, MAX_DRAFT + 1))
        for row in live.values():
            row.proposal = ()
        if self._catch_up or fewest >= n_columns:
            self._catch_up = False
            return min(fewest, n_columns)
        width = fewest
        for index, row in sorted(live.items(), key=lambda item: item[1].n_pending):
            within = n_columns if row.n_pending == fewest else width
            limit = min(within - row.n_pending, states[index].remaining - 1, MAX_DRAFT)
            if limit > 0:
                row.proposal = row.drafter.propose(states[index].history, limit, batch.cached_text(index))
                width = max(width, row.n_pending + len(row.proposal))
        return width

    def _columns(self, states: Sequence[RequestState], live: Mapping[int, _Row], width: int) -> Tensor:
        """Return the tokens to process, (B, width). Rows without enough tokens are filled; their columns are discarded."""
        columns = []
        for index, state in enumerate(states):
            row = live.get(index)
            ids = [] if row is None else [*state.history[-row.n_pending :], *row.proposal][:width]
            columns.append([*ids, *[0] * (width - len(ids))])
        return torch.tensor(columns, device=self._model.device)

    def _accept(
        self, logits_BTV: Tensor, states: Sequence[RequestState], live: Mapping[int, _Row], width: int
    ) -> tuple[list[Event], dict[int, int]]:
        """Sample every row until a token differs from its proposal.

        Returns:
            The new pieces of text, and for each unfinished row the number of processed tokens that belong to its text.
        """
        events: list[Event] = []
        n_valid: dict[int, int] = {}
        for index, row in live.items():
            state = states[index]
            if row.n_pending > width:
                n_valid[index] = width
                continue
            n_accepted, column = 0, row.n_pending - 1
            for expected in (*row.proposal, None):
                logits_1V = logits_BTV[index : index + 1, column + n_accepted]
                chosen_1, pieces = self._choose([self._groups[index]], logits_1V)
                events += pieces
                if state.finish is not None or int(chosen_1) != expected:
                    break
                n_accepted += 1
            self.n_drafted += len(row.proposal)
            self.n_accepted += n_accepted
            if state.finish is None:
                n_valid[index] = row.n_pending + n_accepted
                row.n_pending += n_accepted + 1
                if row.proposal:
                    row.drafter.verified(len(row.proposal), n_accepted)
        return events, n_valid

    def _truncate(self, batch: Batch, live: Mapping[int, _Row], width: int, n_valid: int) -> None:
        """Discard the tokens of the step from the first that is invalid in a row."""
        n_discarded = batch.discard(width - n_valid, width) if n_valid < width else 0
        self._catch_up = n_discarded > width - n_valid
        for row in live.values():
            row.n_pending -= width - n_discarded
