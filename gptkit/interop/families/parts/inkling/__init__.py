"""Inkling: types of layers with their heads and positions, experts, and names of tensors."""
