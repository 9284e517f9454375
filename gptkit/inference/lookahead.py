"""Speculative decoding in a session: logits of several tokens in advance.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.inference.drafting import CheckedDrafter
from gptkit.kinds.drafter import MAX_DRAFT

if TYPE_CHECKING:
    from gptkit.inference.session import Session

__all__ = ["LookAhead"]


class LookAhead:
    """Logits of one text, of which those after proposed tokens are computed in advance.

    A proposed token is accepted if the text continues with it, see `gptkit.inference.speculative`.

    Args:
        session: the session, which has processed the prompt when `step` is called.
        drafter: the drafter of the text.

    Attributes:
        n_drafted: number of verified tokens of all proposals.
        n_accepted: number of accepted ones.
    """

    def __init__(self, session: Session, drafter: CheckedDrafter) -> None:
        self._session = session
        self._drafter = drafter
        self._proposal: Sequence[int] = ()
        self._logits_TV: Tensor | None = None
        self._n_accepted = 0
        self.n_drafted = self.n_accepted = 0

    def next(self, history: Sequence[int]) -> Tensor | None:
        """Return the logits after the text, (1, V), if they are computed already; else discard the rejected tokens."""
        if self._logits_TV is None:
            return None
        if self._n_accepted < len(self._proposal) and history[-1] == self._proposal[self._n_accepted]:
            self._n_accepted += 1
            self.n_accepted += 1
            return self._logits_TV[self._n_accepted][None]
        self.end()
        self._drafter.verified(len(self._proposal), self._n_accepted)
        return None

    def end(self) -> None:
        """Discard the proposed tokens that are not a part of the text."""
        n_rejected = len(self._proposal) - self._n_accepted
        if self._logits_TV is not None and n_rejected:
            self._session.discard(n_rejected, len(self._proposal) + 1)
        self._logits_TV = None

    def step(self, history: list[int], remaining: int) -> Tensor:
        """Process the last token of the text and a proposal; return the logits after the text, (1, V)."""
        limit = min(remaining - 1, self._session.room_ahead(MAX_DRAFT))
        self._proposal = ()
        if limit > 0:
            self._proposal = self._drafter.propose(history, limit, self._session.cached_text(len(history)))
        if not self._proposal:
            return self._session.step(history)
        self._n_accepted = 0
        self._logits_TV = self._session.verify(history[-1], self._proposal)
        self.n_drafted += len(self._proposal)
        return self._logits_TV[:1]
