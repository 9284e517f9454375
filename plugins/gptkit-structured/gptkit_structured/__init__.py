"""Sampler for output that conforms to a schema, a regular expression or a grammar."""
