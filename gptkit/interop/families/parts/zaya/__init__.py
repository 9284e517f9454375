"""ZAYA1: types of layers and their positions, and names of tensors."""
