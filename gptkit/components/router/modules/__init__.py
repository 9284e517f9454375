"""Torch modules of the built-in routers."""
