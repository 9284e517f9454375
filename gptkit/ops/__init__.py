"""Tensor functions that components share; plugins may use them too. No specs, no state."""
