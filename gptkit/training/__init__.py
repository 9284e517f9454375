"""Training: the loop, what watches it, and how it is described."""
