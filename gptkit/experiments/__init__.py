"""Experiments: variants of a spec trained on the same data with the same seeds, and what distinguishes their results."""
