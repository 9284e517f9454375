"""Inkling 2: types of layers with their attention and block, experts, and names of tensors."""
