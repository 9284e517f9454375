"""Torch modules of the built-in feed-forwards."""
