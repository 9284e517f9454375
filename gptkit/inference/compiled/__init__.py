"""Decode steps compiled to machine code, cached on disk."""
