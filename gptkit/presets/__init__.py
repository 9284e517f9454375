"""Spec files that gptkit ships."""
