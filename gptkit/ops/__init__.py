"""Stateless tensor functions that components share; plugins may use them too."""
