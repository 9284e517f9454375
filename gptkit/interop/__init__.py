"""Configurations and weights of external models."""
