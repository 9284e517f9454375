"""Pieces of the templates of blocks with several residual streams: the head of `forward`, and its return."""

from __future__ import annotations

__all__ = ["FORWARD", "RETURN"]

FORWARD = '''
    #if passes
    def forward(self, x_BTNE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, N, E) to (B, T, N, E)."""
        if x_BTNE.ndim == 3:  # the first layer creates the streams, and the last one merges them
            x_BTNE = x_BTNE[:, :, None].expand(-1, -1, $N_STREAMS, -1)
    #else
    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        # The output of a layer has the streams as an attribute.
        x_BTNE: Tensor | None = getattr(x_BTE, "$kept_as", None)
        if x_BTNE is None:
            x_BTNE = x_BTE[:, :, None].expand(-1, -1, $N_STREAMS, -1)
    #end
'''
"""Receive the streams from the layer before, or create them from its output."""

RETURN = """
    #if passes
        return x_BTNE if self.collapse is None else self.collapse(x_BTNE)[0]
    #else
        y_BTE = x_BTNE.mean(dim=2) if self.collapse is None else self.collapse(x_BTNE)[0]
        y_BTE.__dict__["$kept_as"] = x_BTNE
        return y_BTE
    #end
"""
"""Pass the streams to the next layer, or merge them."""
