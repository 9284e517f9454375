"""Length of proposals that follows the acceptance."""

from __future__ import annotations

__all__ = ["DraftLength"]


class DraftLength:
    """Number of tokens to propose: doubled after a proposal that was accepted as a whole, else one more than was accepted.

    Args:
        k: maximum number of tokens, and the initial one.
        adaptive: follow the acceptance; if false, the length is always k.
    """

    def __init__(self, k: int, adaptive: bool) -> None:
        self._k = k
        self._adaptive = adaptive
        self.value = k

    def update(self, n_proposed: int, n_accepted: int) -> None:
        """Take the result of a verification into account."""
        if self._adaptive:
            self.value = min(self._k, 2 * self.value if n_accepted == n_proposed else n_accepted + 1)
