"""Runtime contracts and building blocks that components share."""
