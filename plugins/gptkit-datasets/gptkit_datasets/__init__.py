"""Corpora through Hugging Face datasets."""
