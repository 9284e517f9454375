"""Drafters: components of the kind `drafter`."""
