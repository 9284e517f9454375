"""Recurrences of Mamba and Mamba-2, as families name them."""
