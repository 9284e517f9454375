"""Engines: what computes the next tokens of a model, for many requests at once."""
