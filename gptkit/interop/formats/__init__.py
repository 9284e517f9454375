"""File formats of external models."""
